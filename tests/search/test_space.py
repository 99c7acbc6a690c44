"""Hydra's override grammar as a space: what may be chosen, and how it is written."""

import math

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from lockstep.config.errors import Refused
from lockstep.config.overrides import Setting
from lockstep.config.parsing import parse
from lockstep.config.schema import flatten
from lockstep.search.space import SMALL, Space

PARSER = OverridesParser.create()
BASES = {
    "model=mlp": {
        "model": {"name": "mlp", "hidden_dim1": 256, "dropout": 0.25, "hidden_dims": [1, 2], "max_norm": None}
    },
    "model=logreg": {"model": {"name": "logreg"}},
}


def space(*typed):
    def defaults(options):
        tree = {"seed": 0, **BASES[options[0] if options else "model=mlp"]}
        return dict(flatten(tree, with_nodes=True))

    return Space(
        [Setting.of(override) for override in PARSER.parse_overrides(list(typed))], ["model"], defaults
    )


def value(text):
    return PARSER.parse_override(text).value()


@pytest.mark.parametrize(
    ("typed", "distribution"),
    [
        ("model.dropout=interval(0,0.5)", FloatDistribution(0, 0.5)),
        ("model.dropout=interval(0,1)", FloatDistribution(0, 1)),
        ("model.dropout=tag(log,interval(1e-3,1))", FloatDistribution(1e-3, 1, log=True)),
        ("model.hidden_dim1=interval(8,64)", IntDistribution(8, 64)),
        ("model.max_norm=interval(1,4)", FloatDistribution(1, 4)),
        ("model.max_norm=tag(log,interval(1,4))", FloatDistribution(1, 4, log=True)),
        ("model.max_norm=int(interval(1,4))", IntDistribution(1, 4)),
        ("optim.warmup_epochs=interval(0,2)", FloatDistribution(0, 2)),
        ("optim.betas.0=interval(0,1)", FloatDistribution(0, 1)),
        ("trainer.checkpoint_seconds=interval(1,20)", FloatDistribution(1, 20)),
        ("model.hidden_dim2=interval(8,64)", IntDistribution(8, 64)),
        ("model.hidden_dims.1=interval(8,64)", IntDistribution(8, 64)),
        ("data.val_size=interval(100,200)", IntDistribution(100, 200)),
        ("model.hidden_dim1=tag(log,interval(8,64))", IntDistribution(8, 64, log=True)),
        ("model.dropout=int(interval(0.5,3.5))", IntDistribution(0, 3)),
        ("model.hidden_dim1=range(8,64)", IntDistribution(8, 63)),
        (f"seed=range(0,{2**63})", IntDistribution(0, 2**63 - 1)),
        ("model.hidden_dim1=range(8,64,10)", IntDistribution(8, 58, step=10)),
        ("model.hidden_dim1=range(64,8,-10)", IntDistribution(14, 64, step=10)),
        ("model.hidden_dim1=tag(log,range(1,9))", IntDistribution(1, 8, log=True)),
        ("model.dropout=range(0,0.5,0.25)", CategoricalDistribution([0.0, 0.25])),
        ("model.hidden_dim1=8,16", CategoricalDistribution([8, 16])),
        ("model.hidden_dim1=choice(8,16)", CategoricalDistribution([8, 16])),
        ("model.hidden_dims=choice([8,4],[16])", CategoricalDistribution(["[8,4]", "[16]"])),
        ("seed=choice(1,true)", CategoricalDistribution(["1", "True"])),
    ],
)
def test_distributions(typed, distribution):
    [dimension] = space(typed).values
    assert dimension.distribution == distribution


@pytest.mark.parametrize(
    ("typed", "problem"),
    [
        ("model.dropout=interval(0.5,0.5)", "an empty interval: 0.5 is not less than 0.5"),
        ("model.dropout=interval(0.5,0.1)", "an empty interval: 0.5 is not less than 0.1"),
        ("model.dropout=tag(log,interval(0,1))", "there is no logarithm of 0; an interval tagged log starts"),
        (
            "model.hidden_dim1=tag(log,range(0,9))",
            "there is no logarithm of 0; a range tagged log starts",
        ),
        ("model.dropout=interval(0,1e999)", "an interval has finite ends"),
        ("model.hidden_dim1=range(5,5)", "an empty range"),
        ("model.hidden_dim1=range(1,5,0)", "range() arg 3 must not be zero"),
        ("model.hidden_dim1=8,8", "a value is given twice"),
        ("model=interval(0,1)", "a group is searched by choice"),
    ],
)
def test_what_is_no_space_is_refused(typed, problem):
    with pytest.raises(Refused) as caught:
        space(typed)
    assert caught.value.problems[0].startswith(f"{typed}: {problem}")


def test_a_key_that_a_chosen_group_lacks_is_left_out():
    of = space("model=mlp,logreg", "model.hidden_dim1=8,16", "model.dropout=0.5", "seed=3")
    assert set(of.corners()) == {
        ("model=mlp", "model.dropout=0.5", "seed=3", "model.hidden_dim1=8"),
        ("model=mlp", "model.dropout=0.5", "seed=3", "model.hidden_dim1=16"),
        ("model=logreg", "seed=3"),
    }
    assert of.unknown() == []
    assert of.searched(("model=mlp", "model.dropout=0.5", "seed=3", "model.hidden_dim1=8")) == [
        "model=mlp",
        "model.hidden_dim1=8",
    ]


def test_a_key_that_no_group_has_is_unknown_and_of_a_key_given_twice_the_last_counts():
    assert space("model=mlp,logreg", "model.depth=1,2", "model.wdith=3").unknown() == [
        "model.wdith=3",
        "model.depth=1",
    ]
    of = space("model.hidden_dim1=interval(8,64)", "model.dropout=0.1,0.2", "model.hidden_dim1=9")
    assert set(of.corners()) == {
        ("model.hidden_dim1=9", "model.dropout=0.1"),
        ("model.hidden_dim1=9", "model.dropout=0.2"),
    }


@pytest.mark.parametrize(
    ("overrides", "size"),
    [
        (("model.hidden_dim1=1,2,3", "model.dropout=0.1,0.2"), 6),
        (("model.hidden_dim1=range(1,10,3)",), 3),
        (("model.hidden_dim1=interval(1,10)",), 10),
        (("model.dropout=interval(0,0.5)", "model.hidden_dim1=1,2"), math.inf),
        (("model.hidden_dim1=interval(1,20000)",), 20000),
    ],
)
def test_untried_points_are_those_that_are_left(overrides, size):
    of = space(*overrides)
    assert of.size == size
    if size > SMALL:
        assert of.untried([]) == []
        return
    study, tried = optuna.create_study(), set()
    while points := of.untried(tried):
        assert len(points) == size - len(tried)
        study.enqueue_trial(points[-1])
        tried.add(of.suggest(study.ask()))
    assert len(tried) == size


numbers = st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 6))


@settings(max_examples=60, deadline=None)
@given(st.tuples(numbers, numbers).filter(lambda ends: ends[0] < ends[1]), st.integers(0, 10**6))
def test_what_is_suggested_of_an_interval_is_read_back_by_hydra_bit_for_bit(ends, seed):
    low, high = ends
    of = space(f"model.dropout=interval({low!r},{high!r})")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trial = study.ask()
    [override] = of.suggest(trial)
    assert value(override) == trial.params["model.dropout"]
    assert isinstance(value(override), float)
    assert low <= value(override) <= high


@settings(max_examples=60, deadline=None)
@given(
    st.integers(-1000, 1000),
    st.integers(1, 1000),
    st.integers(1, 50),
    st.integers(0, 10**6),
)
def test_what_is_suggested_of_a_range_is_one_of_its_numbers(start, length, step, seed):
    text = f"range({start},{start + length},{step})"
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()
    [override] = space(f"model.hidden_dim1={text}").suggest(trial)
    assert value(override) in list(PARSER.parse_override(f"x={text}").sweep_iterator())


@pytest.mark.parametrize("typed", ["null,2.0", "choice(null,2.0)"])
def test_null_is_one_of_several_choices(typed):
    [setting] = map(Setting.of, parse([f"optim.warmup_epochs={typed}"]))
    [dimension] = Space([setting], ["model"], lambda _: {"optim.warmup_epochs": None}).values
    assert dimension.distribution == CategoricalDistribution(["null", 2.0])
    assert dimension.ends() == ["optim.warmup_epochs=null", "optim.warmup_epochs=2.0"]


texts = st.one_of(
    st.integers(-99, 99).map(str),
    st.sampled_from(["true", "relu", "'a b'", "[1,2]", "[]", "{a:1}", "1e-3", "null"]),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(texts, min_size=2, max_size=5, unique_by=lambda text: str(value(f"x={text}"))),
    st.integers(0, 99),
)
def test_what_is_suggested_of_a_choice_is_one_of_its_elements(choices, seed):
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()
    [override] = space(f"model.max_norm={','.join(choices)}").suggest(trial)
    assert value(override) in [value(f"x={text}") for text in choices]
