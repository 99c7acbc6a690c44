"""What a config may have Hydra run: presets of somebody else's, attacked and honest."""

import sys

import pytest
from helpers.composing import CONF

from lockstep.config.compose import check_shown, compose
from lockstep.config.errors import Refused

PLUGIN = "hydra_plugins.lockstep_launcher.lockstep_launcher"
SOURCES = "hydra._internal.core_plugins.structured_config_source"

EVIL = {
    "callbacks": {
        "a._target_": "{_target_: os.system, command: id}",
        "b.y.0._target_": "{y: [{_target_: os.system}]}",
        "c._target_": "{_target_: hydra.test_utils.test_utils.run_process, cmd: [id]}",
        "d._target_": f"{{_target_: {PLUGIN}.Path}}",
        "e._target_": "{_target_: hydra.utils.call}",
        "f._target_": "'${oc.create:\"{_target_: posix.system}\"}'",
        "g._target_": "{_target_: 'os.${.name}', name: getcwd}",
        "h": "'${hydra:help.header}'",
        "j._target_": f"{{_target_: {SOURCES}.StructuredConfigSource, provider: x, path: antigravity}}",
        "i.y": "{y: '${hydra.callbacks}'}",
    },
    "job_logging": {
        "filters.a.()": "{a: {(): os.system, command: id}}",
        "formatters.a.class": "{a: {class: os.system}}",
        "handlers.a.class": "{a: {class: logging.handlers.QueueHandler, queue: os.getcwd}}",
        "root.filters.0": "{filters: ['ext://os.system']}",
    },
    "hydra_logging": {"formatters.a.()": "{a: {(): os.system}}", "handlers": "'${hydra:help.header}'"},
    "sweeper": {"params.seed._target_": "{seed: {_target_: os.system}}"},
    "launcher": {"_target_": "os.system"},
    "job": {"env_set.PATH": "{PATH: /tmp}"},
}
"""Settings of a preset, by section of Hydra's settings and the key that names code."""

CALLBACK = "callbacks: {x: {_target_: os.system}}"
FILES = "handlers: {file: {class: logging.handlers.RotatingFileHandler, filename: x.log, formatter: own}}"


@pytest.fixture
def preset(tmp_path):
    """Write a preset with some settings of Hydra; returns the folder for --config-dir."""

    def write(settings, name="evil"):
        (tmp_path / "experiment").mkdir(exist_ok=True)
        path = tmp_path / "experiment" / f"{name}.yaml"
        path.write_text(f"# @package _global_\nhydra:\n  {settings}\n")
        return tmp_path

    return write


def refusal(*arguments, multirun=False, config_dir=None):
    with pytest.raises(Refused) as caught:
        compose(CONF, ["data=digits", *arguments], multirun, config_dir=config_dir)
    return caught.value.problems


def test_a_config_names_no_code(preset):
    settings, want = "", []
    for section, values in EVIL.items():
        settings += f"{section}:\n"
        for key, value in values.items():
            settings += f"    {key.partition('.')[0]}: {value}\n"
            want.append(f"hydra.{section}.{key}")
        settings += "  "
    problems = refusal("experiment=evil", config_dir=preset(settings))
    assert sorted(problem.partition("=")[0] for problem in problems) == sorted(want)
    assert {problem.partition(": ")[2].partition(":")[0] for problem in problems} == {
        "a config must not choose what Hydra runs; type it if you mean it"
    }
    assert "hydra.callbacks.a._target_=os.system: a config" in str(problems)


def test_nor_does_one_of_a_sweeps_presets(preset):
    preset("job: {chdir: false}", name="good")
    problems = refusal("experiment=good,evil", multirun=True, config_dir=preset(CALLBACK))
    assert [problem.partition(": ")[0] for problem in problems] == ["hydra.callbacks.x._target_=os.system"]


def test_nor_the_primary_config(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "defaults: [config, _self_]\nhydra: {callbacks: {x: {_target_: os.system}}}\n"
    )
    with pytest.raises(Refused, match=r"hydra.callbacks.x._target_=os.system: a config must not choose"):
        compose(CONF, ["data=digits"], config_name="mine", config_dir=tmp_path)


def test_help_sets_up_no_log_that_a_config_names_code_for(preset):
    evil = preset("hydra_logging: {formatters: {x: {(): os.system}}}")
    with pytest.raises(Refused, match=r"hydra_logging.formatters.x.\(\)=os.system: a config must not choose"):
        check_shown(CONF, ["experiment=evil"], config_dir=evil)
    check_shown(CONF, ["experiment=bonus", "nope=1"])  # Hydra itself says what is wrong


@pytest.mark.parametrize(
    ("settings", "typed"),
    [
        ("callbacks: {x: {_target_: os.system}}", "hydra.callbacks.x._target_=collections.Counter"),
        ("callbacks: {x: {_target_: os.system}}", "++hydra.callbacks.x={_target_:collections.Counter}"),
        (
            "callbacks: {}",
            "+hydra.callbacks.x={_target_:collections.Counter,y:[{_target_:collections.Counter}]}",
        ),
        ("job_logging: {handlers: {x: {(): os.system}}}", "~hydra.job_logging.handlers.x"),
        ("job: {env_set: {PATH: /tmp}}", "++hydra.job.env_set.PATH=/usr/bin"),
        ("callbacks: {x: {_target_: hydra.experimental.callbacks.LogJobReturnCallback}}", "seed=1"),
        (f"job_logging: {{formatters: {{own: {{format: '%(message)s'}}}}, {FILES}}}", "seed=1"),
        ("job_logging: {handlers: {x: {class: logging.StreamHandler, stream: ext://sys.stdout}}}", "seed=1"),
        ("launcher: {n_jobs: '${oc.env:N_JOBS,3}'}", "seed=1"),
    ],
)
def test_what_is_typed_and_what_only_writes_is_allowed(preset, settings, typed):
    [request] = compose(CONF, ["data=digits", "experiment=evil", typed], config_dir=preset(settings)).requests
    assert request.config.data.name == "digits"


def test_a_typed_value_beside_a_configs_code_does_not_allow_it(preset):
    typed = ("+hydra.callbacks.x={y:1}", "+hydra.callbacks.z._target_=collections.Counter")
    [problem] = refusal("experiment=evil", *typed, config_dir=preset(CALLBACK))
    assert problem.startswith("hydra.callbacks.x._target_=os.system: ")


def test_nothing_of_the_code_is_imported_to_refuse_it(preset, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "lockstep_evil.py").write_text("raise SystemExit")
    for named in ("callbacks: {x: {_target_: %s}}", "job_logging: {filters: {x: {(): %s}}}"):
        settings = named % "lockstep_evil.f"
        assert len(refusal("experiment=evil", config_dir=preset(settings))) == 1
    assert "lockstep_evil" not in sys.modules
