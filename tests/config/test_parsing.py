"""What is typed, as Hydra reads it, and what is said of text that it can't read."""

import shlex
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep.config.errors import Refused
from lockstep.config.parsing import as_if_typed, as_text, for_shell, parse


def problem(text, multirun=False):
    with pytest.raises(Refused) as caught:
        parse([text], multirun=multirun)
    [problem] = caught.value.problems
    return problem


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("~/wine.npz", f"{Path.home()}/wine.npz"),
        ("/data/wine (1).npz", None),
        ("a=b.npz", None),
        ("/tmp/größe.npz", None),
        ("数据.npz", None),
        ("C:{x}.npz", None),
        ("#1", None),
        ("it's; here & there!", None),
        ('say "hi" (now)', None),
        ("50%<x>", None),
        ("runs (a, b)", None),
        ("${oc.env:A,${oc.env:B}}", None),
    ],
)
def test_text_that_hydra_cannot_read_is_shown_quoted_for_the_shell(value, meant):
    text = f"data.path={value}"
    start, _, shown = problem(text).rpartition("; quote it: ")
    assert start == f"{text}: Hydra can't read this text without quotes"
    [typed] = shlex.split(shown)
    [override] = parse([typed])
    assert override.value() == (meant or value)


def test_each_text_of_a_sweep_is_quoted():
    shown = problem("data.path=~/a.npz,b.npz,ü.npz", multirun=True).rpartition("quote it: ")[2]
    [override] = parse(shlex.split(shown))
    texts = [getattr(value, "text", value) for value in override.sweep_iterator()]
    assert texts == [f"{Path.home()}/a.npz", "b.npz", "ü.npz"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optim.lr", "optim.lr: no value; write optim.lr=<value>"),
        ("=", "=: nothing is no key; write key=value"),
        ("=3", "=3: nothing is no key"),
        ("dáta.path=x", "dáta.path=x: dáta.path is no key"),
        ("optim..lr=1", "optim..lr=1: optim..lr is no key"),
        ("my key=3", "my key=3: my key is no key"),
        ("model.hidden_dims=[1,2", "model.hidden_dims=[1,2: "),
        ("optim={lr:0.1", "optim={lr:0.1: "),
        ("optim.lr=interval(0,", "optim.lr=interval(0,: "),
        ("optim.lr=range(a,b)", "optim.lr=range(a,b): TypeError"),
    ],
)
def test_what_is_no_override_is_answered_in_one_line(text, message):
    assert problem(text).startswith(message)
    assert len(problem(text).splitlines()) == 1


def test_all_unreadable_texts_are_listed():
    with pytest.raises(Refused) as caught:
        parse(["seed=1", "a=(", "b=ü"])
    assert [line.partition(":")[0] for line in caught.value.problems] == ["a=(", "b=ü"]


def test_null_is_one_of_several_choices():
    [override] = parse(["optim.warmup_epochs=choice(null, 2.0)"])
    assert list(override.sweep_iterator()) == [None, 2.0]
    assert override.input_line == "optim.warmup_epochs=null, 2.0"


@pytest.mark.parametrize(
    ("text", "value"),
    [("2", 2), ("0.1", 0.1), ("true", True), ("null", None), ("[1,2]", [1, 2]), ("1,2", "1,2"), ("ü", "ü")],
)
def test_text_as_if_it_was_typed(text, value):
    assert as_if_typed(text) == value
    assert type(as_if_typed(text)) is type(value)


@pytest.mark.parametrize(
    ("of_hydra", "typed"),
    [
        (r"model.path=nets.py\:Net", "model.path=nets.py:Net"),
        (r"data.path=my\ data.npz", "'data.path=my data.npz'"),
        (r"data.path=a\,b\=c.npz", r"'data.path=a\,b\=c.npz'"),  # without them it would be a sweep
        ("model.hidden_dims=[8,16]", "'model.hidden_dims=[8,16]'"),
        ("data.path='a:b'", """'data.path='"'"'a:b'"'"''"""),
        ("optim.lr=0.1", "optim.lr=0.1"),
        ("~experiment", "'~experiment'"),
    ],
)
def test_an_override_of_hydras_is_shown_as_it_would_be_typed(of_hydra, typed):
    assert for_shell(["data=digits", of_hydra]) == f"data=digits {typed}"


LEAVES = st.none() | st.booleans() | st.integers(-99, 99) | st.floats(allow_nan=False) | st.text(max_size=6)


@settings(max_examples=200, deadline=None)
@given(st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3), max_leaves=5))
def test_a_value_as_text_is_read_back(value):
    [override] = parse([f"key={as_text(value)}"])
    assert override.value() == value
