"""Predictions of trained networks."""

import numpy as np
import pytest
import torch
from helpers.configs import LOGREG, MLP, run_config

from lockstep.data.datasets import load
from lockstep.data.minibatches import split
from lockstep.training.loop import train
from lockstep.training.prediction import predict


@pytest.mark.parametrize(("model", "precision"), [(MLP, "float32"), (LOGREG, "float64")])
def test_they_are_the_softmax_of_the_network_and_agree_with_the_recorded_accuracies(model, precision):
    config = run_config(model, epochs=1, precision=precision, val_size=300)
    dataset = load(config.data)
    [run] = train([config], dataset)
    predictions = predict(run, dataset)
    _, val_N = split(len(dataset.x_train), 300)
    for name, x, y in (
        ("test", dataset.x_test, dataset.y_test),
        ("val", dataset.x_train[val_N], dataset.y_train[val_N]),
    ):
        found = predictions[name]
        with torch.no_grad():
            logits = run.network(x.to(getattr(torch, precision)))
        assert np.array_equal(found.label_N, y)
        assert np.array_equal(found.prediction_N, logits.argmax(1))
        np.testing.assert_allclose(found.probabilities_NxC, logits.softmax(1), rtol=1e-5, atol=1e-7)
        assert found.probabilities_NxC.dtype == np.float32
        assert found.accuracy == run.history.of(name)[-1].accuracy
        assert found.class_names == dataset.description.class_names


def test_without_a_validation_split_there_are_the_tests_only():
    config = run_config(LOGREG, epochs=1)
    dataset = load(config.data)
    [run] = train([config], dataset)
    assert list(predict(run, dataset)) == ["test"]
