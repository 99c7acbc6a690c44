"""`model=module`: whose code runs, and which settings it has."""

import pytest
from helpers.composing import CONF
from helpers.nets import NETS

from lockstep.config.compose import compose
from lockstep.config.errors import Refused
from lockstep.search.space import corners
from lockstep.training import network_code

MODULE = ("model=module", f"model.path={NETS}:ConvNet", "data=digits")


def configs_of(*arguments, multirun=False, config_dir=None, read=network_code.read):
    command = compose(CONF, arguments, multirun, config_dir=config_dir, read_network=read)
    return [request.config for request in command.requests]


def refusal(*arguments, **options):
    with pytest.raises(Refused) as caught:
        configs_of(*arguments, **options)
    return list(caught.value.problems)


def test_its_arguments_are_settings_that_are_swept_and_recorded():
    first, second = configs_of(*MODULE, "model.channels=8,16", multirun=True)
    assert first.model.settings == {"channels": 8, "dropout": 0.25, "kernel": [3, 3]}
    assert second.params()["model.channels"] == 16
    assert second.params()["model"] == "module"
    assert first.params()["model.source"].startswith("ConvNet@")
    assert first.run_key("digest") != second.run_key("digest")


def test_a_run_is_identified_by_the_code_and_all_arguments_not_by_the_place_of_the_file(tmp_path):
    [there] = configs_of(*MODULE)
    (tmp_path / "copy.py").write_bytes(NETS.read_bytes())
    [moved] = configs_of("model=module", f"model.path={tmp_path}/copy.py:ConvNet", "data=digits")
    [typed] = configs_of(*MODULE, "model.channels=4")
    (tmp_path / "edited.py").write_bytes(NETS.read_bytes() + b"#")
    [edited] = configs_of("model=module", f"model.path={tmp_path}/edited.py:ConvNet", "data=digits")
    keys = [config.run_key("digest") for config in (there, moved, typed, edited)]
    assert keys[0] == keys[1] == keys[2] != keys[3]


def test_relative_paths_are_of_the_shells_folder(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_bytes(NETS.read_bytes())
    monkeypatch.chdir(tmp_path)
    [config] = configs_of("model=module", "model.path=mine.py:ConvNet")
    assert config.model.path == f"{tmp_path}/mine.py:ConvNet"


def test_every_problem_of_every_run_is_named():
    mistakes = ("model.chanels=8", "model.dropout=no,0.5", "optim.lr=-1")
    assert refusal(*MODULE, *mistakes, multirun=True)[:2] == [
        "model.chanels=8: not an argument of ConvNet; it has channels, dropout, kernel; did you mean"
        " channels?",
        "model.dropout=no: must be a valid number",
    ]
    assert refusal("model=module") == ["model.path: required; give it as model.path=<value>"]
    assert "not a setting of model=mlp" in refusal("model.path=nets.py:Net")[0]


@pytest.fixture
def trap(tmp_path):
    """A file that leaves a trace when it is run."""
    path = tmp_path / "trap.py"
    path.write_text(
        f"from pathlib import Path\nfrom torch import nn\nPath({str(tmp_path / 'trace')!r}).touch()\n"
        "def Net(n_classes): return nn.Sequential(nn.Flatten(), nn.Linear(64, n_classes))\n"
    )
    return path


@pytest.mark.parametrize(
    "preset",
    [
        "# @package _global_\ndefaults:\n  - override /model: module\nmodel:\n  path: {path}:Net\n",
        "# @package _global_\ndefaults:\n  - override /model: module\n"
        "hydra:\n  sweeper:\n    params:\n      model.path: {path}:Net,{path}:Net\n",
    ],
    ids=["value", "sweep"],
)
def test_what_a_preset_names_is_not_run_unless_it_is_typed(tmp_path, trap, preset):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "theirs.yaml").write_text(preset.format(path=trap))
    [problem] = refusal("experiment=theirs", multirun=True, config_dir=tmp_path)
    assert problem == (
        f"model.path={trap}:Net: a config must not choose which code runs; type it if you mean it: "
        f"model.path={trap}:Net"
    )
    assert not (tmp_path / "trace").exists()
    assert configs_of("experiment=theirs", f"model.path={trap}:Net", multirun=True, config_dir=tmp_path)
    assert (tmp_path / "trace").exists()


def test_a_caller_that_reads_no_code_refuses_it(trap, tmp_path):
    [problem] = refusal("model=module", f"model.path={trap}:Net", read=None)
    assert problem == "model=module: its code can't be run here"
    assert not (tmp_path / "trace").exists()


def test_beside_other_models_the_path_is_of_those_runs_that_have_one(tmp_path):
    path = f"model.path={NETS}:ConvNet"
    module, mlp = configs_of("model=module,mlp", path, "model.dropout=0.5", multirun=True)
    assert (module.model.settings["dropout"], mlp.model.name, mlp.model.dropout) == (0.5, "mlp", 0.5)
    two = configs_of("model=mlp,module", f"{path},{NETS}:perceptron", multirun=True)
    assert [getattr(config.model, "source", "mlp").partition("@")[0] for config in two] == [
        "mlp",
        "ConvNet",
        "perceptron",
    ]
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /model: module\nmodel:\n  channels: 7\n"
    )
    plain, mine = configs_of("experiment=null,mine", path, multirun=True, config_dir=tmp_path)
    assert (plain.model.name, mine.model.settings["channels"]) == ("mlp", 7)
    problems = refusal("model=logreg,mlp", path, multirun=True)
    assert [problem.partition(";")[0].partition(": ")[2] for problem in problems] == [
        "not a setting of model=logreg",
        "not a setting of model=mlp",
    ]
    searched = ("hydra/sweeper=search", "model=choice(module,mlp)", path, "data.val_size=100")
    command = compose(CONF, searched, True, read_network=network_code.read)
    assert {request.config.model.name for request in corners(command.search)} == {"module", "mlp"}


def test_its_arguments_can_be_searched():
    typed = ("hydra/sweeper=search", *MODULE, "data.val_size=100", "model.dropout=interval(0,1)")
    command = compose(CONF, (*typed, "model.channels=range(2,9)"), True, read_network=network_code.read)
    settings = [request.config.model.settings for request in corners(command.search)]
    assert {of_run["channels"] for of_run in settings} == {2, 8}
    assert {of_run["dropout"] for of_run in settings} == {0.0, 1.0}
    command = compose(CONF, (*typed, "model.chanels=range(2,9)"), True, read_network=network_code.read)
    with pytest.raises(Refused) as caught:
        corners(command.search)
    assert caught.value.problems[0].startswith("model.chanels=2: not an argument of ConvNet")
