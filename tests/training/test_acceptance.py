"""The workshop's figures on real MNIST: skipped, with the reason, where it can't be had."""

import pytest
from helpers.configs import LOGREG, STREAM

from lockstep.config.errors import Refused
from lockstep.config.schema import (
    MLPConfig,
    RunConfig,
    SGDConfig,
    TrackingConfig,
    TrainerConfig,
)
from lockstep.data.datasets import load
from lockstep.training.loop import train

pytestmark = pytest.mark.mnist

MLP = MLPConfig(
    name="mlp", hidden_dim1=256, hidden_dim2=100, hidden_dims=(256, 100), dropout=0.25, activation="relu"
)


@pytest.fixture(scope="module")
def mnist():
    try:
        return load(STREAM)
    except Refused as refused:
        pytest.skip(f"MNIST can't be had here: {refused}")


@pytest.mark.parametrize(("model", "least"), [(LOGREG, 0.917), (MLP, 0.976)], ids=["logreg", "mlp"])
def test_workshop_settings_reach_the_workshops_accuracy(mnist, model, least):
    config = RunConfig(
        model=model,
        optim=SGDConfig(name="sgd", lr=0.01, momentum=0.9, nesterov=False, weight_decay=0.0),
        data=STREAM,
        trainer=TrainerConfig(epochs=10, device="cpu", precision="float32", log_every=50),
        tracking=TrackingConfig(uri="unused", experiment="unused", pictures="all"),
        seed=0,
    )
    [run] = train([config], mnist)
    assert run.history.of("test")[-1].accuracy >= least
