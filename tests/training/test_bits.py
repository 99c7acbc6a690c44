"""A run's bits: the same alone as in any company, on any threads, and resumed: all that is recorded."""

from dataclasses import replace

import pytest
import torch
from helpers.configs import run_config
from helpers.nets import CNN, module
from helpers.reference import OPTIMS, clipped
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep.config.data_config import AugmentConfig
from lockstep.config.model_config import LogRegConfig, MLPConfig, ModuleConfig
from lockstep.data.datasets import Dataset
from lockstep.data.description import DataDescription, iterations_per_epoch
from lockstep.pictures.representations import planes_of, separation
from lockstep.results import predictions_file
from lockstep.training import artifacts
from lockstep.training.checkpoint import Checkpoint, to_bytes
from lockstep.training.loop import train
from lockstep.training.prediction import predict

N_TRAIN, N_TEST = 130, 40
EPOCHS = 2
WIDTHS = st.sampled_from([1, 2, 5, 8, 9, 16, 17, 24, 33, 64, 100])


def drawn_data(n_features, n_classes):
    generator = torch.Generator().manual_seed(n_features)
    y = torch.randint(n_classes, (N_TRAIN + N_TEST,), generator=generator)
    x = torch.randn(N_TRAIN + N_TEST, n_features, generator=generator) + y[:, None] / n_classes
    names = tuple(map(str, range(n_classes)))
    digest = f"{n_features} {n_classes}"
    shape = (8, 8) if n_features == 64 else (n_features,)
    description = DataDescription("drawn", digest, shape, names, N_TRAIN, N_TEST, "drawn")
    return Dataset(description, x[:N_TRAIN], y[:N_TRAIN], x[N_TRAIN:], y[N_TRAIN:])


def mlp(hidden_dims, dropout, activation, max_norm, input_dropout):
    drops = {"dropout": dropout, "input_dropout": input_dropout}
    return MLPConfig(name="mlp", hidden_dims=hidden_dims, activation=activation, max_norm=max_norm, **drops)


MODULES = st.sampled_from([module("Odd"), module("Odd", width=5), module("perceptron", dropout=0.3)])
MODELS = st.just(LogRegConfig(name="logreg")) | st.builds(
    mlp,
    st.lists(WIDTHS, min_size=1, max_size=3),
    st.sampled_from([0.0, 0.25, 0.3]),
    st.sampled_from(["relu", "gelu", "tanh", "sigmoid"]),
    st.sampled_from([None, 0.6]),
    st.sampled_from([0.0, 0.2]),
)
MODELS |= MODULES


@st.composite
def arrays(draw):
    """A data set; runs that share minibatches, most of equal shapes; an order; threads."""
    dataset = drawn_data(
        draw(st.sampled_from([1, 3, 16, 17, 64, 100])), draw(st.sampled_from([2, 3, 10, 16, 26]))
    )
    shared = {
        "precision": draw(st.sampled_from(["float32", "bfloat16", "float64"])),
        "batch_size": draw(st.sampled_from([1, 2, 5, 8, 16, 33, 57, 64, 91, 128])),
        "drop_last": draw(st.booleans()),
        "epochs": EPOCHS,
        "val_size": 2,
    }
    if dataset.description.n_features == 64:
        shared["augment"] = draw(st.builds(AugmentConfig, shift=st.integers(0, 2), flip=st.booleans()))
    kinds = st.tuples(MODELS, st.sampled_from(list(OPTIMS.values())))
    kinds = st.sampled_from(draw(st.lists(kinds, min_size=1, max_size=2)))
    steps = st.tuples(
        *(kinds, st.sampled_from([None, 0.1]), st.sampled_from([0.0, 0.1, 0.3]), st.sampled_from([None, 1])),
        st.sampled_from([None, "balanced"]),
    )
    runs = draw(st.lists(steps, min_size=3, max_size=6))
    if any(isinstance(model, ModuleConfig) for (model, _), *_ in runs):
        shared["precision"] = shared["precision"].replace("bfloat16", "float32")
        shared["batch_size"] = max(2, shared["batch_size"])  # as batch normalisation needs
    configs = [
        run_config(
            *(model, clipped(optim, norm), seed),
            label_smoothing=smoothing,
            class_weights=weights,
            patience=patience,
            **shared,
        )
        for seed, ((model, optim), norm, smoothing, patience, weights) in enumerate(runs)
    ]
    return dataset, configs, draw(st.permutations(range(len(runs)))), draw(st.sampled_from([1, 2]))


class Recording:
    """What is recorded of runs, by seed, as soon as each has ended."""

    def __init__(self, dataset, folder):
        self._dataset, self._folder = dataset, folder
        self.of_seed = {}

    def __call__(self, k, run, epoch):
        if not run.has_ended:
            return
        folder = self._folder / str(len(list(self._folder.iterdir())))
        folder.mkdir()
        artifacts.write_run(run, folder)
        if run.history.diverged_at is None:
            predictions_file.write(predict(run, self._dataset), folder)
        found = {path.name: path.read_bytes() for path in folder.rglob("*.*")}
        del found["history.parquet"]  # the evaluation at a rung is in it
        history = run.history
        found |= {"loss": history.loss_T.tobytes(), "accuracy": history.accuracy_T.tobytes()}
        found |= {split: history.of(split) for split in ("test", "val")} | {"state": to_bytes(run.state())}
        if history.diverged_at is None:
            found["spaces"] = separation(run.network, self._dataset)
            if planes := planes_of(run.network, self._dataset):
                found["planes"] = [(p.points_Nx2.tobytes(), p.explained_variance_ratio) for p in planes]
        self.of_seed[run.config.seed] = found


def assert_bits_are_those_of_each_run_alone(array, folder):
    dataset, configs, order, threads = array
    alone, together = Recording(dataset, folder), Recording(dataset, folder)
    for config in configs:
        train([config], dataset, alone)
    # The pause is amid an epoch, mostly, as at a search's rung; another evaluation is amid the last one.
    steps = iterations_per_epoch(configs[0].data, dataset.description)
    pause_at = max(1, round(steps * (0.5 + order[0] / len(order))))
    rungs = (pause_at, 2 * steps - 1)
    paused = train(configs, dataset, together, threads, pause_at=pause_at)
    checkpoints = [Checkpoint(run.history, run.state(), run.best) for run in paused if not run.has_ended]
    going_on = [run.config for run in paused if not run.has_ended]
    order = [k for k in order if k < len(going_on)]
    for part in (order[::3], order[1::3] + order[2::3]):
        if part:
            of_part = [checkpoints[k] for k in part]
            train([going_on[k] for k in part], dataset, together, checkpoints=of_part, rungs=rungs)
    for config in configs:
        of_alone, of_together = alone.of_seed[config.seed], together.of_seed[config.seed]
        assert [what for what, value in of_alone.items() if of_together[what] != value] == []
        assert of_alone.keys() == of_together.keys()


@pytest.mark.parametrize(
    ("batch_size", "hidden_dims", "optim", "precision"),
    [
        pytest.param(57, (32, 16), "sgd-momentum", "float32", id="the loss's rest that fills no vector"),
        pytest.param(91, (40, 30, 20), "adam", "float32", id="GEMMs' results that are not aligned"),
        pytest.param(1, (), "sgd", "float32", id="products with vectors"),
        pytest.param(5, (33,), "sgd", "float32", id="logits that are aligned in some steps of a stretch"),
        pytest.param(128, (9, 3), "sgd-nesterov", "bfloat16", id="GEMMs for oneDNN only if batched"),
    ],
)
def test_shapes_that_a_stack_computed_otherwise(tmp_path, batch_size, hidden_dims, optim, precision):
    model = mlp(hidden_dims, 0.25, "relu", None, 0.0) if hidden_dims else LogRegConfig(name="logreg")
    stream = {"batch_size": batch_size, "drop_last": False, "precision": precision, "epochs": EPOCHS}
    stream["augment"] = AugmentConfig(shift=batch_size % 3, flip=precision == "bfloat16")
    configs = [run_config(model, OPTIMS[optim], seed, **stream) for seed in range(5)]
    assert_bits_are_those_of_each_run_alone((drawn_data(64, 10), configs, range(5), 1), tmp_path)


def test_a_minibatch_of_a_module_has_the_same_bits_wherever_it_is_in_a_stretch():
    config = run_config(module("Odd"), OPTIMS["sgd"], batch_size=2, val_size=2, epochs=EPOCHS)  # 136 bytes
    dataset = drawn_data(17, 2)
    [expected], [run] = train([config], dataset), train([config], dataset, rungs=(65, 127))
    assert run.history.loss_T.tobytes() == expected.history.loss_T.tobytes()


@pytest.mark.parametrize("threads", [1, 2])
def test_convolutional_networks_beside_each_other_and_others(tmp_path, threads):
    drawn = drawn_data(64, 10)
    dataset = replace(drawn, description=replace(drawn.description, feature_shape=(8, 8)))
    other = mlp((9,), 0.25, "relu", None, 0.0) if threads == 1 else module("perceptron")
    models = [CNN, module("ConvNet"), other, module("ConvNet", channels=3), CNN]
    optims = [OPTIMS[name] for name in ("sgd-momentum", "adam", "sgd-momentum", "sgd-momentum", "adamw")]
    configs = [
        run_config(model, optim, seed, epochs=EPOCHS, batch_size=57, drop_last=False, threads=threads)
        for seed, (model, optim) in enumerate(zip(models, optims, strict=True))
    ]
    assert_bits_are_those_of_each_run_alone((dataset, configs, [4, 2, 0, 1, 3], 2), tmp_path)


@pytest.mark.parametrize("model", [mlp((9,), 0.25, "relu", None, 0.0), LogRegConfig(name="logreg")])
@pytest.mark.parametrize("optim", ["sgd-decay", "adamw"])
def test_smoothed_weighted_and_clipped_runs_beside_others(tmp_path, model, optim):
    stream = {"batch_size": 24, "drop_last": False, "precision": "float32", "epochs": EPOCHS}
    steps = [(0.1, 0.1), (0.3, None), (0.0, 0.1), (0.2, 0.05), (0.0, None)]
    losses = [(weights, *step) for weights in (None, "balanced") for step in steps]
    configs = [
        run_config(
            *(model, clipped(OPTIMS[optim], clip_norm), seed),
            label_smoothing=smoothing,
            class_weights=weights,
            **stream,
        )
        for seed, (weights, smoothing, clip_norm) in enumerate(losses)
    ]
    array = drawn_data(17, 10), configs, [4, 8, 2, 0, 7, 3, 1, 9, 6, 5], 1
    assert_bits_are_those_of_each_run_alone(array, tmp_path)


@settings(max_examples=12, deadline=None)
@given(arrays())
def test_every_series_of_a_run_and_its_artifacts_are_those_it_has_alone(tmp_path_factory, array):
    assert_bits_are_those_of_each_run_alone(array, tmp_path_factory.mktemp("recorded"))


@pytest.mark.faults
@settings(max_examples=600, deadline=None)
@given(arrays())
def test_the_same_for_hundreds_of_arrays(tmp_path_factory, array):
    assert_bits_are_those_of_each_run_alone(array, tmp_path_factory.mktemp("recorded"))
