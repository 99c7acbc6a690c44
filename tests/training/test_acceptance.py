"""The figures that the docs give of MNIST: skipped, with the reason, where it can't be had."""

import re

import pytest
import torch
from helpers.clone import REPOSITORY
from helpers.configs import LOGREG, STREAM, sgd

from lockstep.config.errors import Refused
from lockstep.config.model_config import MLPConfig
from lockstep.config.schema import RunConfig, TrackingConfig, TrainerConfig
from lockstep.data.datasets import load
from lockstep.training.loop import train

pytestmark = pytest.mark.mnist

MLP = MLPConfig(
    name="mlp", hidden_dim1=256, hidden_dim2=100, hidden_dims=(256, 100), dropout=0.25, activation="relu"
)
TOLERANCE = 0.002
"""The last bits of float32 differ between processors, and ten epochs make some instances of it."""


@pytest.fixture(scope="module")
def mnist():
    try:
        return load(STREAM)
    except Refused as refused:
        pytest.skip(f"MNIST can't be had here: {refused}")


def trained(model, mnist):
    """A run with the workshop's settings and seeds of 0."""
    config = RunConfig(
        model=model,
        optim=sgd(lr=0.01),
        data=STREAM,
        trainer=TrainerConfig(epochs=10, device="cpu", precision="float32", log_every=50),
        tracking=TrackingConfig(uri="unused", experiment="unused", pictures="all"),
        seed=0,
    )
    [run] = train([config], mnist)
    return run


def of_five_seeds():
    """Means and standard deviations: logistic regression, the perceptron with dropout left on, and off."""
    text = (REPOSITORY / "docs" / "workshop.md").read_text()
    found = re.findall(r"\| \**(0\.\d+) ± (0\.\d+)\** \|", text)
    return [(float(mean), float(std)) for mean, std in found]


def test_the_workshops_logistic_regression_is_as_accurate_as_the_docs_say(mnist):
    (mean, std), _, _ = of_five_seeds()
    accuracy = trained(LOGREG, mnist).history.of("test")[-1].accuracy
    assert accuracy == pytest.approx(mean, abs=2 * std + TOLERANCE)


def test_the_workshops_perceptron_is_as_accurate_as_the_docs_say(mnist):
    run = trained(MLP, mnist)
    row = re.search(r"^256 lr=0.01 +(.*?) +\S+ s ", (REPOSITORY / "README.md").read_text(), re.M)
    accuracy, best, loss = map(float, row.group(1).split())
    tests = run.history.of("test")
    assert tests[-1].accuracy == pytest.approx(accuracy, abs=TOLERANCE)
    assert max(test.accuracy for test in tests) == pytest.approx(best, abs=TOLERANCE)
    assert tests[-1].loss == pytest.approx(loss, abs=2 * TOLERANCE)
    _, (with_dropout, its_std), (mean, std) = of_five_seeds()
    assert tests[-1].accuracy == pytest.approx(mean, abs=2 * std + TOLERANCE)
    torch.manual_seed(0)
    with torch.no_grad():
        logits = run.network.train()(mnist.x_test)
    dropped = (logits.argmax(1) == mnist.y_test).double().mean().item()
    assert dropped == pytest.approx(with_dropout, abs=2 * its_std + TOLERANCE)
