"""The check of a module before a sweep trains it."""

from dataclasses import replace

import pytest
from helpers.configs import run_config
from helpers.nets import CNN, NETS, module

from lockstep.config.errors import Refused
from lockstep.data.datasets import load
from lockstep.training import network_check


def measured(name, **data):
    config = run_config(module(name))
    config = config.model_copy(update={"data": config.data.model_copy(update=data)})
    return network_check.measure(config, load(config.data))


@pytest.mark.parametrize("name", ["ConvNet", "Odd", "perceptron"])
def test_networks_that_can_be_resumed_are_measured(name):
    found = measured(name)
    assert found.n_parameters > 100
    assert 0 < found.row_seconds < found.step_seconds < 10


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("Counts", "gives the same instances other logits each time, in evaluation mode"),
        (
            "PythonsRandom",
            "keeps state outside of its parameters and buffers, or draws random numbers",
        ),
        ("NumpysRandom", "its initial weights differ each time it is built; draw them by torch alone"),
        ("TooFew", "returns (1, 9), torch.float32 for 1 instance; allowed: logits (1, 10), torch.float32"),
        ("NoTensor", "returns tuple for 1 instance; allowed: logits (1, 10), torch.float32"),
        ("Squeezes", "returns (10,), torch.float32 for 1 instance; allowed: logits (1, 10), torch.float32"),
        ("FixedRows", "can't be called with 1 instance of 1 x 8 x 8: RuntimeError: "),
        ("Complex", "has complex parameters or buffers; hold real ones, which torch.view_as_complex"),
        ("Wavers", "gives the same instances other logits each time, in evaluation mode"),
        ("Nothing", "has no parameters that are trained"),
        ("Lazy", "has lazy layers; give their sizes, which input_shape and n_classes tell"),
        ("FailsLater", "can't be called with 1 instance of 1 x 8 x 8: RuntimeError: "),
    ],
)
def test_networks_that_cannot_be_trained_or_resumed_are_refused(name, problem):
    with pytest.raises(Refused) as caught:
        measured(name)
    assert caught.value.problems[0].startswith(f"model.path={NETS}:{name}: {name}(): {problem}")


def test_an_epochs_last_minibatch_can_be_too_small():
    assert measured("Odd", batch_size=4)  # which leaves 1 of 1,437 instances out
    with pytest.raises(Refused) as caught:
        measured("Odd", batch_size=4, drop_last=False)
    [problem] = caught.value.problems
    assert (
        "can't be trained on an epoch's last minibatch, which has 1 instance; data.drop_last=true" in problem
    )
    assert "ValueError: Expected more than 1 value per channel when training" in problem
    assert problem.endswith(f"(line {line_of('h = self.again(torch.relu(self.norm(')})")
    assert measured("Odd", batch_size=4, drop_last=False, val_size=3)


def line_of(text):
    return next(n for n, line in enumerate(NETS.read_text().splitlines(), 1) if text in line)


@pytest.mark.parametrize(
    ("shape", "channels", "problem"),
    [
        ((64,), (4,), "model=cnn: needs images; an instance of digits has the shape (64,)"),
        (
            (8, 8),
            (4, 4, 4, 4),
            "model.channels=[4, 4, 4, 4]: 4 convolutions with pooling by 2 leave nothing of 8 x 8",
        ),
    ],
)
def test_data_that_a_convolutional_network_cannot_take_is_refused(shape, channels, problem):
    config = run_config(CNN.model_copy(update={"channels": channels}))
    dataset = load(config.data)
    dataset = replace(dataset, description=replace(dataset.description, feature_shape=shape))
    with pytest.raises(Refused) as caught:
        network_check.measure(config, dataset)
    assert caught.value.problems == (problem,)
