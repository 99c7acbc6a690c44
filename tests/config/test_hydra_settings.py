"""Settings of Hydra itself, and presets that have some: its sweeper, its launcher, a sweep of their own."""

import pytest
from helpers.composing import CONF, configs_of, refusal

from lockstep.config.compose import compose
from lockstep.config.errors import Refused
from lockstep.search.space import corners


@pytest.mark.parametrize(("multirun", "mode"), [(False, "run"), (True, "sweep")])
def test_a_folder_that_cannot_be_made_is_refused(tmp_path, multirun, mode):
    (tmp_path / "file").write_text("")
    for folder, there in ((f"{tmp_path}/file/x", f"{tmp_path}/file"), ("/proc/nope", "/proc")):
        [problem] = refusal(f"hydra.{mode}.dir={folder}", multirun=multirun)
        assert problem == f"hydra.{mode}.dir={folder}: {there} is not a folder that can be written to"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


LONG = "x" * 300


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("hydra.job.name=a/b", "hydra.job.name=a/b: no log can be written at /"),
        ("hydra.output_subdir=/proc/x", "hydra.output_subdir=/proc/x: /proc is not a folder that can be wri"),
        (f"hydra.output_subdir={LONG}", f"hydra.output_subdir={LONG}: File name too long"),
        ("hydra.output_subdir='${nope}'", "hydra.output_subdir: Interpolation key 'nope' not found"),
        ("+hydra.job.env_set.X='${nope}'", "hydra.job.env_set.X: Interpolation key 'nope' not found"),
        ("hydra.job_logging.root.level=LOUD", "hydra.job_logging, hydra.verbose=False: Unable to configure"),
        ("hydra.hydra_logging.version=2", "hydra.hydra_logging, hydra.verbose=False: Unsupported version"),
        (
            "hydra.job_logging.handlers.file.class=logging.Nope",
            "hydra.job_logging.handlers.file.class=logging.Nope: module 'logging' has",
        ),
        (
            "+hydra.callbacks.x._target_=nope.X",
            "hydra.callbacks.x={'_target_': 'nope.X'}: No module named 'nope'",
        ),
        ("+hydra.callbacks.x=3", "hydra.callbacks.x=3: names no class"),
        ("+hydra.job.env_set.X='http://me:s3c@h'", "hydra.job.env_set.X=http://me:s3c@h: holds a password"),
        ("hydra.verbose=3", "hydra.hydra_logging, hydra.verbose=3: "),
        ("hydra.launcher.n_jobs='${nope}'", "hydra.launcher.n_jobs: Interpolation key 'nope' not found"),
        ("hydra.mode=FAST", "Error merging override hydra.mode=FAST"),
        ("hydra=null", ""),
        ("hydra.job=null", ""),
        ("hydra.job.chdir=maybe", "Error merging override hydra.job.chdir=maybe"),
        ("hydra.callbacks=3", ""),
    ],
)
def test_settings_of_hydra_that_it_cannot_use_are_refused(setting, message):
    [problem] = refusal(setting, "data=digits")
    assert problem.startswith(message)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "hydra.launcher.n_jobs=0",
            "hydra.launcher.n_jobs=0: needs at least one worker; -1 for one per core",
        ),
        (
            "hydra.launcher.n_jobs=100000000000000000000",
            "hydra.launcher.n_jobs=100000000000000000000: allowed: up",
        ),
        ("hydra.overrides.hydra=[a]", "hydra.overrides.hydra=['a']: Hydra itself sets it; leave it out"),
        ("hydra.sweeper.max_batch_size=0", "hydra.sweeper.max_batch_size=0: needs at least one run"),
        ("hydra.sweeper.max_batch_size=-1", "hydra.sweeper.max_batch_size=-1: needs at least one run"),
        ("hydra.sweeper=null", "hydra.sweeper._target_=None: not one of hydra."),
        ("hydra.launcher._target_=nope.Nope", "hydra.launcher._target_=nope.Nope: not one of hydra."),
        ("hydra.sweep.subdir='${nope}'", "hydra.sweep.subdir: Interpolation key 'nope' not found"),
        (
            "hydra.sweep.subdir=/proc/x",
            "hydra.sweep.subdir=/proc/x: /proc is not a folder that can be written",
        ),
        ("hydra.sweep.subdir=${tracking.experiment}", f"hydra.sweep.subdir={LONG}: File name too long"),
        ("hydra.sweep.dir='${nope}'", "hydra.sweep.dir: Interpolation key 'nope' not found"),
        ("hydra.sweep.dir='${hydra:nope}'", "hydra.sweep.dir: "),
        ("+hydra.sweeper.params={trainer.epochs:[1,[3]]}", "trainer.epochs=[3]: must be a valid integer"),
        ("+hydra.sweeper.params={seed:'0,('}", "seed=0,(: Hydra can't read this text without quotes"),
        ("hydra.sweeper.params={seed:1}", "Could not override 'hydra.sweeper.params'."),
        ("hydra.sweeper.params=3", ""),
        ("hydra.sweeper.params=[1]", ""),
    ],
)
def test_settings_of_a_sweep_that_hydra_cannot_use_are_refused(setting, message):
    [problem] = refusal(setting, "data=digits", f"tracking.experiment={LONG}", "seed=0,1", multirun=True)
    assert problem.startswith(message)


def test_hydras_resolver_is_resolved_as_in_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = 'hydra.sweep.dir="${hydra:runtime.cwd}/x"'
    values = ("data=arrays", "data.path=${hydra:runtime.cwd}/my.npz", "seed=${hydra:job.num}")
    named = ("tracking.experiment=${hydra:job.override_dirname}", "optim.lr=0.1,0.2")
    requests = compose(CONF, [*values, *named, folder], multirun=True).requests
    assert [request.config.data.path for request in requests] == [f"{tmp_path}/my.npz"] * 2
    assert [request.config.seed for request in requests] == [0, 1]
    assert ["optim.lr=0.2" in request.config.tracking.experiment for request in requests] == [False, True]
    [alone] = configs_of(["tracking.experiment=${hydra:job.name}"])
    assert alone.tracking.experiment == "run"
    assert refusal("seed=${hydra:job.num}") == ["seed=null: must be a valid integer"]


PRESETS = {
    "finds": "defaults: [{override /hydra/sweeper: search}]\n",
    "joins": "defaults: [{override /hydra/launcher: joblib}]\n",
    "jobs": "hydra: {launcher: {n_jobs: 2}}\n",
    "tries": "hydra: {sweeper: {n_trials: 3}}\n",
    "plain": "seed: 3\n",
}


@pytest.fixture
def presets(tmp_path):
    (tmp_path / "experiment").mkdir()
    for name, text in PRESETS.items():
        (tmp_path / "experiment" / f"{name}.yaml").write_text(f"# @package _global_\n{text}")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["experiment=plain,explore"], "experiment=explore: sets hydra/sweeper=search"),
        (["experiment=finds,plain"], "experiment=finds: sets hydra/sweeper=search"),
        (["experiment=plain,jobs"], "experiment=jobs: sets hydra.launcher"),
        (["experiment=plain,tries", "hydra/sweeper=search"], "experiment=tries: sets hydra.sweeper"),
        (["experiment=plain,jobs", "optim=sgd,adam"], "experiment=jobs optim=sgd: sets hydra.launcher"),
    ],
)
def test_presets_that_choose_for_hydra_are_not_swept(presets, arguments, what):
    with pytest.raises(Refused) as caught:
        corners(compose(CONF, [*arguments, "data.val_size=100"], True, config_dir=presets).search)
    assert caught.value.problems[0].startswith(f"{what}, which is the same for all runs of a sweep; give it")


@pytest.mark.parametrize(
    ("preset", "n_jobs"), [("jobs", 2), ("plain", -1)], ids=["chooses for Hydra", "chooses nothing"]
)
def test_a_preset_by_itself_chooses_for_hydra(presets, preset, n_jobs):
    assert (
        compose(CONF, [f"experiment={preset}", "seed=0,1"], True, config_dir=presets).launcher.n_jobs
        == n_jobs
    )


def own_sweep(tmp_path, params):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        f"# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params: {params}\n"
    )


def test_lists_in_a_presets_sweep_are_values(tmp_path):
    own_sweep(
        tmp_path,
        "{optim.lr: [0.1, 1e-2], optim: [sgd, adam], model: {hidden_dims: [[8], [8, 4]]},"
        " data.root: [null, '/a (1)'], data.drop_last: [true], seed: 3, model.max_norm: null}",
    )
    configs = [r.config for r in compose(CONF, ["experiment=mine"], config_dir=tmp_path).requests]
    assert len(configs) == 16
    assert {c.optim.lr for c in configs} == {0.1, 0.01}
    assert {c.optim.name for c in configs} == {"sgd", "adam"}
    assert {c.model.hidden_dims for c in configs} == {(8,), (8, 4)}
    assert {c.data.root for c in configs} == {None, "/a (1)"}
    assert {(c.seed, c.data.drop_last, c.model.max_norm) for c in configs} == {(3, True, None)}


def test_a_key_is_dropped_from_a_presets_sweep(tmp_path):
    own_sweep(tmp_path, "{optim.lr: '0.1,0.2', seed: 'range(0,3)', optim: 'sgd,adam'}")

    def asked(*typed):
        configs = [r.config for r in compose(CONF, ["experiment=mine", *typed], config_dir=tmp_path).requests]
        return len(configs), {c.optim.lr for c in configs}, {c.optim.name for c in configs}

    assert asked() == (12, {0.1, 0.2}, {"sgd", "adam"})
    assert asked("~optim.lr") == (6, {0.01, 0.001}, {"sgd", "adam"})
    assert asked("~optim.lr", "~seed") == (2, {0.01, 0.001}, {"sgd", "adam"})
    assert asked("hydra.sweeper.params=null") == (1, {0.01}, {"sgd"})
    assert asked("~optim") == (6, {0.1, 0.2}, {"sgd"})
