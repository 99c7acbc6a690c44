"""Names, tags and notes, as they are typed."""

import pytest
from helpers.composing import configs_of, refusal


@pytest.fixture(autouse=True)
def root(monkeypatch):
    monkeypatch.setenv("LOCKSTEP_ROOT", "/nowhere")


def test_what_a_user_says_of_a_run_changes_neither_its_key_nor_its_params():
    said = (
        "tracking.name=2026",
        "tracking.tags={team:vision,n:3,done:true}",
        "tracking.note='before, after'",
    )
    plain, told = configs_of(["data=digits"])[0], configs_of(["data=digits", *said])[0]
    assert (told.tracking.name, told.tracking.note) == ("2026", "before, after")
    assert told.tracking.tags == {"team": "vision", "n": "3", "done": "true"}
    assert (told.run_key("digest"), told.params()) == (plain.run_key("digest"), plain.params())
    [config] = configs_of(["data=digits", "+tracking.tags.team=vision"])
    assert config.tracking.tags == {"team": "vision"}


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (
            "tracking.tags={mlflow.user:me}",
            "tracking.tags.mlflow.user: names that start with mlflow. or lockstep.",
        ),
        (
            "+tracking.tags.lockstep.kind=run",
            "tracking.tags.lockstep={'kind': 'run'}: must be a valid string",
        ),
        (
            "tracking.tags={a@b:1}",
            "tracking.tags.a@b: allowed in a tag's name: letters, digits, spaces and _ - .",
        ),
        ("tracking.tags=vision", "tracking.tags=vision: must be a valid dictionary"),
        ("tracking.name=''", "tracking.name=: String should have at least 1 character"),
        ("tracking.name=[a]", "tracking.name=['a']: must be a valid string"),
        (
            "tracking.notes=a",
            "tracking.notes=a: not a setting of tracking; it has uri, experiment, pictures, weights, name,",
        ),
    ],
)
def test_what_cannot_be_recorded_is_refused(typed, said):
    [problem] = refusal("data=digits", typed)
    assert problem.startswith(said)
