"""How runs and sweeps are named."""

from itertools import product

import pytest
from helpers.composing import CONF
from helpers.configs import job

from lockstep.config.compose import compose
from lockstep.results.run_result import RunResult
from lockstep.results.winner import Repeats
from lockstep.sweep import names


def grid(uri, **values):
    """The runs of a grid; `__` stands for the dot of a key."""
    keys = [key.replace("__", ".") for key in values]
    combined = product(*values.values())
    return [job(uri, *(f"{k}={v}" for k, v in zip(keys, own, strict=True))) for own in combined]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"seed": [0, 1]}, ["seed=0", "seed=1"]),
        ({"optim__lr": [0.1, 0.05]}, ["lr=0.1", "lr=0.05"]),
        ({"model__hidden_dim1": [128, 256]}, ["128", "256"]),
        (
            {"model__hidden_dim1": [128, 256], "optim__lr": ["1e-2", "1e-3"]},
            ["128 lr=1e-2", "128 lr=1e-3", "256 lr=1e-2", "256 lr=1e-3"],
        ),
        ({"model": ["logreg", "mlp"], "seed": [0, 1]}, ["logreg s0", "logreg s1", "mlp s0", "mlp s1"]),
        ({"optim__lr": [0.1, 0.05], "seed": [0]}, ["lr=0.1", "lr=0.05"]),
        (
            {"optim__lr": [0.01], "optim__momentum": [0, 0.9], "model__dropout": [0, 0.5]},
            ["0 d=0", "0 d=0.5", "0.9 d=0", "0.9 d=0.5"],
        ),
        ({"model__hidden_dims": ["[64]", "[128,64]"]}, ["64", "128-64"]),
        ({"data__path": ["/a/long/path/of/a.npz", "/a/long/path/of/b/c.npz"]}, ["a.npz", "path=b/c.npz"]),
        (
            {"optim": ["{lr:0.1,momentum:0.5}", "{lr:0.05,betas:[1,2]}"]},
            ["lr=0.1 momentum=0.5", "lr=0.05 betas=1-2"],
        ),
        ({"experiment": ["null", "bonus"]}, ["experiment=null", "bonus"]),
        ({"+note": ["[red]\x1b[31m:x:", "b"]}, ["note=[red]\\x1b[31m:x:", "b"]),
        ({"data__path": ['"a b/c"', "a b/d"]}, ["c", "d"]),
        ({"optim__lr": ["0.1", "'0.1'"]}, ["optim.lr=0.1", "optim.lr='0.1'"]),  # short forms are equal
        (
            {"trainer__epochs": ["1", "'1'", "2"]},
            ["trainer.epochs=1", "trainer.epochs='1'", "trainer.epochs=2"],
        ),
        ({"seed": [1, 1]}, ["mlp", "mlp"]),
    ],
    ids=lambda value: " x ".join(value) if isinstance(value, dict) else "",
)
def test_runs_are_named_by_what_tells_them_apart_within_what_mlflow_shows(uri, values, expected):
    assert names.run_names(grid(uri, **values)) == expected


def test_names_of_larger_sweeps_are_unique_and_as_many_as_possible_look_different(uri):
    large = {"model__hidden_dim1": [128, 256], "model__activation": ["relu", "tanh"]}
    large |= {"optim__lr": [0.1, 0.01], "model__dropout": [0, 0.25], "seed": range(3)}
    found = names.run_names(grid(uri, **large))
    assert found[:4] == [
        "128 relu 0.1 0 s0",
        "128 relu 0.1 0 s1",
        "128 relu 0.1 0 s2",
        "128 relu 0.1 0.25 s0",
    ]
    assert len(set(found)) == 48


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"model__hidden_dim1": [8, 9], "optim__lr": [0.1, 0.2]}, "hidden_dim1 x lr, 4 runs"),
        ({"model": ["logreg", "mlp"], "data": ["digits"], "seed": [0, 1]}, "model x seed, 4 runs"),
        ({"+a__n": [1, 2], "b__n": [1, 2]}, "a.n x b.n, 4 runs"),
        ({"optim__lr": [0.1]}, "mlp, 1 run"),
    ],
)
def test_sweeps_are_named_by_what_they_sweep(uri, values, expected):
    requests = grid(uri, **values)
    assert names.sweep_name(requests, len(requests)) == expected


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ((), "mlp"),
        (("model=mlp", "optim.lr=0.01", "tracking.pictures=none", "seed=0", "experiment=null"), "mlp"),
        (("model=logreg", "data=digits", "optim.momentum=0"), "logreg digits momentum=0"),
        (("optim=adam", "optim.lr=0.001", "trainer.epochs=5"), "adam epochs=5"),
        (("experiment=bonus", "model.hidden_dims=[512,256]"), "bonus hidden_dims=512-256"),
    ],
)
def test_a_single_run_is_named_by_what_differs_from_the_defaults(monkeypatch, typed, name):
    monkeypatch.setenv("LOCKSTEP_ROOT", "/nowhere")
    assert names.run_names(compose(CONF, typed).requests) == [name]


def test_trials_are_named_by_their_number_and_their_confirmations_by_the_seed():
    name = names.trial_name(
        7, ["optim=adamw", "optim.lr=0.0316227766", "model.hidden_dim1=128", "optim.eps=1e-08"]
    )
    assert name == "7: adamw lr=0.03162 hidden_dim1=128 eps=1e-08"
    assert names.confirmation_name(name, 2) == "7 s2: adamw lr=0.03162 hidden_dim1=128 eps=1e-08"


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("lr=0.1 s0", "lr=0.1"),
        ("256 seed=3 lr=0.1", "256 lr=0.1"),
        ("s1 lr=0.1 o2", "lr=0.1"),
        ("seed=0 shuffle_seed=4", "mlp"),
    ],
)
def test_repeats_are_named_without_their_seeds(name, row):
    run = RunResult(name, "key", "digest", {"model": "mlp"}, (), "FINISHED", {})
    assert Repeats((run, run)).name == row
