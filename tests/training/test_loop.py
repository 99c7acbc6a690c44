"""train(): the loop around the array, held against a loop as the workshop would write it."""

import copy
import math

import numpy as np
import pytest
import torch
from helpers.configs import LOGREG, MLP, run_config, sgd
from helpers.nets import module
from helpers.reference import dropout_mask, variant_of
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.utils.data import TensorDataset

from lockstep.config.data_config import AugmentConfig
from lockstep.config.errors import Refused
from lockstep.config.model_config import MLPConfig
from lockstep.config.schema import TrainerConfig
from lockstep.data.datasets import load
from lockstep.data.minibatches import split
from lockstep.training import networks
from lockstep.training.device import device_of
from lockstep.training.loop import _Data, balanced, train
from lockstep.training.prediction import predict
from lockstep.training.random_streams import generator

HELD = MLPConfig(
    name="mlp", hidden_dims=(24, 16), dropout=0.25, activation="gelu", max_norm=0.6, input_dropout=0.1
)


@pytest.fixture(scope="module")
def digits():
    return load(run_config().data)


def same(a, b):
    return (
        np.array_equal(a.history.loss_T, b.history.loss_T)
        and np.array_equal(a.history.accuracy_T, b.history.accuracy_T)
        and a.history.evaluations == b.history.evaluations
        and all(
            torch.equal(p, q) for p, q in zip(a.network.parameters(), b.network.parameters(), strict=True)
        )
    )


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize(
    ("model", "schedule", "smoothing", "clip_norm", "augment"),
    [
        (LOGREG, "constant", 0.0, math.inf, AugmentConfig()),
        (MLP, "onecycle", 0.0, math.inf, AugmentConfig()),
        (MLP, "constant", 0.1, 0.1, AugmentConfig()),
        (MLP, "constant", 0.0, math.inf, AugmentConfig(shift=1, flip=True)),
    ],
    ids=["logreg", "mlp", "smoothed and clipped", "augmented"],
)
def test_two_epochs_equal_a_loop_by_hand(digits, model, schedule, smoothing, clip_norm, augment, drop_last):
    optim = sgd(schedule=schedule, clip_norm=None if clip_norm == math.inf else clip_norm)
    stream = {"drop_last": drop_last, "val_size": 100, "augment": augment}
    config = run_config(model, optim, precision="float64", label_smoothing=smoothing, **stream)
    [run] = train([config], digits)

    module = networks.build(model, 64, 10, generator(0, "init")).double()
    dropout, order, draws = (generator(0, purpose) for purpose in ("dropout", "shuffle", "augment"))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    rows, val_rows = split(digits.description.n_train, 100)
    total = 2 * (len(rows) // 64 if drop_last else -(-len(rows) // 64))
    rates = (
        torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total, cycle_momentum=False)
        if schedule == "onecycle"
        else torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1)
    )
    data = TensorDataset(digits.x_train.double(), digits.y_train)
    losses, accuracies, tests, vals = [], [], [], []
    for _ in range(2):
        shuffled = rows[torch.randperm(len(rows), generator=order)]
        x_N, y_N = data[shuffled]
        if augment.is_on:
            variants = torch.randint(18, (len(rows),), generator=draws).tolist()
            images = zip(x_N.view(-1, 1, 8, 8), variants, strict=True)
            x_N = torch.stack([variant_of(image, variant, 1, True).flatten() for image, variant in images])
        for x, y in zip(x_N.split(64), y_N.split(64), strict=True):
            if drop_last and len(x) < 64:
                continue
            h = x
            if model is MLP:
                for layer in module.hidden:
                    h = torch.relu(layer(h))
                    h = h * dropout_mask(0.25, *h.shape, dropout)
                logits = module.output(h)
            else:
                logits = h @ module.W + module.b
            loss = nn.functional.cross_entropy(logits, y, label_smoothing=smoothing)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), clip_norm)
            optimizer.step()
            rates.step()
            losses.append(loss.item())
            accuracies.append((logits.argmax(1) == y).double().mean().item())
        with torch.no_grad():
            module.eval()
            for kept, x, y in (
                (tests, digits.x_test.double(), digits.y_test),
                (vals, *data[val_rows]),
            ):
                logits = module(x)
                kept.append(
                    (
                        nn.functional.cross_entropy(logits, y).item(),
                        (logits.argmax(1) == y).double().mean().item(),
                    )
                )

    np.testing.assert_allclose(run.history.loss_T, losses, rtol=0, atol=1e-10)
    np.testing.assert_allclose(run.history.accuracy_T, accuracies, rtol=0, atol=1e-12)
    for name, expected in (("test", tests), ("val", vals)):
        measured = [(e.loss, e.accuracy) for e in run.history.of(name)]
        np.testing.assert_allclose(measured, expected, rtol=0, atol=1e-10)
    steps = (len(rows) // 64) if drop_last else -(-len(rows) // 64)
    assert [e.iteration for e in run.history.of("test")] == [steps, 2 * steps]
    for given, expected in zip(run.network.parameters(), module.parameters(), strict=True):
        torch.testing.assert_close(given.detach(), expected.detach(), rtol=0, atol=1e-10)


def test_same_config_same_numbers_whatever_ran_before(digits):
    [first] = train([run_config()], digits)
    torch.manual_seed(123)
    torch.rand(1000)
    np.random.seed(9)
    train([run_config(seed=5)], digits)
    [again] = train([run_config()], digits)
    assert same(first, again)


def test_training_leaves_the_global_generator_and_thread_count_alone(digits):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        state = torch.get_rng_state()
        train([run_config(epochs=1)], digits)
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_seed_changes_weights_and_masks_shuffle_seed_the_order(digits):
    [base] = train([run_config(epochs=1)], digits)
    for other in (run_config(epochs=1, seed=1), run_config(epochs=1, shuffle_seed=1)):
        [run] = train([other], digits)
        assert not np.array_equal(run.history.loss_T, base.history.loss_T)


def test_runs_of_an_array_equal_each_alone_and_leave_when_they_are_done(digits):
    configs = [
        run_config(MLP, epochs=3),
        run_config(LOGREG, epochs=1, seed=1),
        run_config(MLP, sgd(lr=0.2), epochs=2, seed=2),
        run_config(HELD, sgd(schedule="cosine"), epochs=2, seed=3),
        run_config(HELD, sgd(schedule="onecycle"), epochs=3, seed=4),
    ]
    together = train(configs, digits)
    assert [run.history.epochs for run in together] == [3, 1, 2, 2, 3]
    for config, run in zip(configs, together, strict=True):
        [alone] = train([config], digits)
        assert same(run, alone)
    for order in ([2, 4, 0, 3, 1], [1, 3, 2, 0, 4]):
        permuted = train([configs[k] for k in order], digits)
        assert all(same(run, together[k]) for k, run in zip(order, permuted, strict=True))


def stopped_by_hand(config, digits):
    """Train as torch's users do, with Keras' rule of early stopping.

    Returns:
        How many epochs, which is best, its loss and accuracy on the validation and test set, its weights.
    """
    module = networks.build(config.model, 64, 10, generator(0, "init")).double()
    optimizer = torch.optim.SGD(module.parameters(), lr=config.optim.lr, momentum=0.9)
    rows, val_rows = split(digits.description.n_train, config.data.val_size)
    order, x, y = generator(0, "shuffle"), digits.x_train.double(), digits.y_train
    best, wait = None, 0
    for epoch in range(1, config.trainer.epochs + 1):
        for batch in rows[torch.randperm(len(rows), generator=order)].split(64):
            if len(batch) == 64:
                optimizer.zero_grad()
                nn.functional.cross_entropy(module(x[batch]), y[batch]).backward()
                optimizer.step()
        with torch.no_grad():
            measured = [
                figure.item()
                for x_NxF, y_N in ((x[val_rows], y[val_rows]), (digits.x_test.double(), digits.y_test))
                for logits in [module(x_NxF)]
                for figure in (
                    nn.functional.cross_entropy(logits, y_N),
                    (logits.argmax(1) == y_N).double().mean(),
                )
            ]
        monitored = measured[0] if config.trainer.monitor == "val/loss" else -measured[1]
        wait += 1
        if best is None or monitored < best[0]:
            best, wait = (monitored, epoch, measured, copy.deepcopy(module.state_dict())), 0
        if wait >= config.trainer.patience:
            break
    return epoch, *best[1:]


PATIENT = {
    "loss": {"model": LOGREG, "optim": sgd(1.0), "patience": 2},
    "accuracy": {"model": MLP.model_copy(update={"dropout": 0.0}), "patience": 3, "monitor": "val/accuracy"},
    "to the end": {"model": LOGREG, "optim": sgd(1.0), "patience": 20, "epochs": 8},
}


@pytest.mark.parametrize("settings", PATIENT.values(), ids=PATIENT)
def test_a_run_with_a_patience_equals_a_loop_by_hand(digits, settings):
    config = run_config(**{"epochs": 40, "precision": "float64", "val_size": 100, **settings})
    [run] = train([config], digits)
    epochs, best, measured, weights = stopped_by_hand(config, digits)
    assert best < epochs  # else nothing is restored
    assert (epochs < config.trainer.epochs) == (run.stopped_at is not None)
    assert (run.history.epochs, run.history.restored_epoch) == (epochs, best)
    assert run.stopped_at in (None, epochs)
    for name, tensor in run.network.state_dict().items():
        torch.testing.assert_close(tensor, weights[name], rtol=0, atol=1e-10)
    keys = ("val/loss", "val/accuracy", "test/loss", "test/accuracy")
    np.testing.assert_allclose([run.history.summary()[key] for key in keys], measured, rtol=0, atol=1e-10)
    predicted = predict(run, digits)
    assert predicted["test"].accuracy == run.history.summary()["test/accuracy"]
    assert predicted["val"].accuracy == run.history.summary()["val/accuracy"]


def test_runs_with_other_patiences_leave_an_array_each_with_the_bits_of_training_alone(digits):
    patiences = [
        (3, "val/loss", MLP),
        (None, "val/loss", MLP),
        (1, "val/accuracy", LOGREG),
        (1, "val/loss", MLP),
        (2, "val/loss", module("Odd")),  # with batch normalisation, and buffers of its own
    ]
    configs = [
        run_config(model, sgd(0.3), seed, epochs=12, val_size=100, patience=patience, monitor=monitor)
        for seed, (patience, monitor, model) in enumerate(patiences)
    ]
    together = train(configs, digits)
    ends = [(run.history.epochs, run.history.restored_epoch) for run in together]
    assert len({epochs for epochs, _ in ends}) > 2
    assert ends[1] == (12, None)
    for config, run in zip(configs, together, strict=True):
        [alone] = train([config], digits)
        assert same(run, alone)
        for one, other in zip(run.network.buffers(), alone.network.buffers(), strict=True):
            assert torch.equal(one, other)
    again = train(configs[::-1], digits)[::-1]
    assert all(map(same, again, together))
    assert [(run.history.epochs, run.history.restored_epoch) for run in again] == ends


@pytest.mark.filterwarnings("ignore:overflow")
def test_a_run_that_diverges_restores_nothing(digits):
    [run] = train([run_config(MLP, sgd(1e20), epochs=3, val_size=100, patience=1)], digits)
    assert run.history.diverged_at is not None
    assert (run.history.restored_epoch, run.stopped_at) == (None, None)


@pytest.mark.parametrize(("precision", "clip_norm"), [("float32", 0.5), ("float64", None)])
def test_threads_that_share_a_large_networks_steps_change_no_bit(digits, monkeypatch, precision, clip_norm):
    wide = MLPConfig(name="mlp", hidden_dims=(512, 300, 101), dropout=0.5, activation="tanh")
    config = run_config(wide, sgd(clip_norm=clip_norm), epochs=2, precision=precision)
    [alone] = train([config], digits)
    numbers = []
    monkeypatch.setattr(
        torch, "set_num_threads", lambda n, set=torch.set_num_threads: (numbers.append(n), set(n))
    )
    [shared] = train([config], digits, threads=4)
    assert {4, 2, 1} <= set(numbers)  # 512 units are four blocks, 300 are two
    assert same(shared, alone)


@pytest.mark.filterwarnings("ignore:overflow")
def test_a_run_that_diverges_leaves_amid_healthy_ones(digits):
    configs = [
        run_config(MLP, epochs=3),
        run_config(MLP, sgd(lr=1e20), epochs=3),
        run_config(LOGREG, epochs=3),
    ]
    told = []

    def after_epoch(k, run, epoch):
        assert epoch.diverged == (run.history.diverged_at is not None)
        told.append((k, run.history.epochs, run.history.diverged_at))

    together = train(configs, digits, after_epoch)
    sick = together[1].history
    assert sick.diverged_at is not None
    assert sick.diverged_at == len(sick.loss_T) <= 22
    assert not np.isfinite(sick.loss_T[-1])
    assert np.isfinite(sick.loss_T[:-1]).all()
    assert sick.evaluations == []
    assert told[:3] == [(0, 1, None), (1, 0, sick.diverged_at), (2, 1, None)]
    assert [k for k, _, _ in told[3:]] == [0, 2, 0, 2]
    for k in (0, 2):
        [alone] = train([configs[k]], digits)
        assert together[k].history.diverged_at is None
        assert same(together[k], alone)


def test_an_update_that_breaks_the_weights_at_an_epochs_end_is_seen(digits):
    # One iteration an epoch: its loss is finite, its update is not.
    config = run_config(LOGREG, sgd(lr=1e308), epochs=1, batch_size=1437, precision="float64")
    [run] = train([config], digits)
    assert np.isfinite(run.history.loss_T).all()
    assert run.history.diverged_at == 1
    assert run.history.epochs == 0


def test_runs_that_cannot_share_an_array_are_turned_away(digits):
    for other in (run_config(shuffle_seed=1), run_config(precision="float64")):
        with pytest.raises(ValueError, match="share data, device, precision and threads"):
            train([run_config(), other], digits)


def test_generators_differ_by_seed_and_purpose():
    draws = {
        torch.rand(4, generator=generator(seed, purpose)).numpy().tobytes()
        for seed in range(3)
        for purpose in ("init", "dropout", "shuffle")
    }
    assert len(draws) == 9


def trainer(device, precision="float32"):
    return TrainerConfig(epochs=1, device=device, precision=precision, log_every=1)


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(Refused, match=r"trainer.device=cuda: not available .*; allowed here: auto, .*cpu"):
        device_of(trainer("cuda"))


def test_auto_takes_the_best_device_there_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert device_of(trainer("auto")) == torch.device("cpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert device_of(trainer("auto")) == torch.device("mps")
    assert device_of(trainer("auto", "float64")) == torch.device("cpu")  # MPS has no float64
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_of(trainer("auto")) == torch.device("cuda")


def test_balanced_weights_are_scikit_learns_of_the_training_split(digits):
    y = np.array([0, 0, 0, 1, 3])
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=y)
    found = balanced(torch.from_numpy(y), 4)
    assert found[[0, 1, 3]].tolist() == pytest.approx(expected, rel=1e-15)
    assert found[2] == 0  # a class that no training instance has
    config = run_config(val_size=600, precision="float64")
    rows = split(1437, 600)[0]
    of_split = compute_class_weight("balanced", classes=np.arange(10), y=digits.y_train[rows].numpy())
    assert _Data(config, digits, 0).class_weights_C.tolist() == pytest.approx(of_split, rel=1e-15)
