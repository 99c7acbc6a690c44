"""Runs of modules, against loops of torch.optim in float64."""

import numpy as np
import pytest
import torch
from helpers.configs import run_config
from helpers.nets import CNN, module
from helpers.reference import OPTIMS, clipped
from sklearn.utils.class_weight import compute_class_weight
from torch import nn

from lockstep.config.optim_config import SGDConfig
from lockstep.data.datasets import load
from lockstep.data.minibatches import Minibatches
from lockstep.training import networks, schedule
from lockstep.training.loop import train
from lockstep.training.module_stack import ModuleStack
from lockstep.training.networks import ModuleNetwork
from lockstep.training.prediction import predict
from lockstep.training.random_streams import generator, own_random_numbers


def reference_loop(config, dataset):
    """What a user would write: the losses, and the network."""
    network = networks.initial(config, dataset.description).double()
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    values = config.optim.model_dump(exclude={"name", "schedule", "warmup_epochs", "clip_norm"})
    optimizer = getattr(torch.optim, {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}[config.optim.name])(
        parameters, **values
    )
    minibatches = Minibatches(
        torch.arange(dataset.description.n_train), config.data.batch_size, False, generator(0, "shuffle")
    )
    rate = schedule.build(config.optim, config.trainer.epochs, minibatches.steps)
    losses, weights_C = [], None
    if config.trainer.class_weights:
        weights_C = compute_class_weight("balanced", classes=np.arange(10), y=dataset.y_train.numpy())
        weights_C = torch.from_numpy(weights_C)
    with own_random_numbers(generator(config.seed, "dropout")):
        for _ in range(config.trainer.epochs):
            for indices_B in minibatches.epoch():
                optimizer.param_groups[0]["lr"] = rate(len(losses))
                optimizer.zero_grad()
                logits_BxC = network.train()(dataset.x_train[indices_B].double())
                smoothing = config.trainer.label_smoothing
                loss = nn.functional.cross_entropy(
                    logits_BxC, dataset.y_train[indices_B], weights_C, label_smoothing=smoothing
                )
                loss.backward()
                if config.optim.clip_norm is not None:
                    nn.utils.clip_grad_norm_(parameters, config.optim.clip_norm)
                optimizer.step()
                losses.append(loss.item())
    return losses, network


@pytest.mark.parametrize("model", [module("ConvNet"), module("Odd"), CNN], ids=["ConvNet", "Odd", "cnn"])
@pytest.mark.parametrize("optim", OPTIMS.values(), ids=OPTIMS)
def test_a_module_trains_as_in_a_loop_of_torch(model, optim):
    config = run_config(model, optim, seed=3, epochs=1, precision="float64", batch_size=100, drop_last=False)
    dataset = load(config.data)
    losses, network = reference_loop(config, dataset)
    [run] = train([config], dataset)
    assert run.history.loss_T.tolist() == pytest.approx(losses, abs=1e-12, rel=1e-12)
    wanted = network.state_dict()
    for key, found in run.network.state_dict().items():
        torch.testing.assert_close(found, wanted[key], rtol=0, atol=1e-11, msg=key)
    with torch.no_grad():
        logits = network.eval()(dataset.x_test.double())
    [test] = run.history.of("test")
    assert test.accuracy == (logits.argmax(1) == dataset.y_test).double().mean().item()


def test_schedules_apply_to_modules():
    optim = SGDConfig(name="sgd", lr=0.1, momentum=0.9, nesterov=False, weight_decay=0.0, schedule="onecycle")
    config = run_config(module("perceptron"), optim, epochs=2, precision="float64", drop_last=False)
    dataset = load(config.data)
    [run] = train([config], dataset)
    assert run.history.loss_T.tolist() == pytest.approx(reference_loop(config, dataset)[0], abs=1e-12)


@pytest.mark.parametrize(("optim", "class_weights"), [("sgd-decay", "balanced"), ("adamw", None)])
def test_other_losses_and_clipped_gradients_are_torchs(optim, class_weights):
    stream = {"precision": "float64", "label_smoothing": 0.1, "drop_last": False}
    stream["class_weights"] = class_weights
    config = run_config(module("Odd"), clipped(OPTIMS[optim], 0.3), epochs=2, **stream)
    dataset = load(config.data)
    [run] = train([config], dataset)
    assert run.history.loss_T.tolist() == pytest.approx(reference_loop(config, dataset)[0], abs=1e-12)


def test_torchs_global_generator_is_left_as_it_was():
    config = run_config(module("Odd"), epochs=1)
    before = torch.get_rng_state()
    train([config], load(config.data))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers_threads", [1, 2])
def test_a_module_trains_and_predicts_on_its_own_threads_whatever_the_worker_has(
    monkeypatch, workers_threads
):
    used, forward = set(), ModuleNetwork.forward

    def noting(network, x_BxF):
        used.add(torch.get_num_threads())
        return forward(network, x_BxF)

    step = ModuleStack.train

    def noting_step(stack, stretch):
        used.add(torch.get_num_threads())
        return step(stack, stretch)

    monkeypatch.setattr(ModuleNetwork, "forward", noting)
    monkeypatch.setattr(ModuleStack, "train", noting_step)
    config = run_config(module("perceptron"), epochs=1, threads=3)
    dataset = load(config.data)
    [run] = train([config], dataset, threads=workers_threads)
    predict(run, dataset)
    assert used == {3}
