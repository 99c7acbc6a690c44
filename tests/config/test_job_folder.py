"""Jobs' folders: what Hydra's own `run_job` writes."""

from functools import partial

import pytest
from helpers.composing import CONF
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import run_job, setup_globals
from hydra.types import HydraContext, RunMode
from omegaconf import OmegaConf, open_dict

from lockstep.config._hydra_compat import VERSION_BASE
from lockstep.config.composer import Composer
from lockstep.config.errors import Refused
from lockstep.config.job_folder import JobFolders

SWEEP = ["model=logreg", "optim=adam", "hydra.job.chdir=true", "tracking.experiment='a b'"]
FILES = ("config.yaml", "hydra.yaml", "overrides.yaml")


class _NoCallbacks:
    def on_job_start(self, **_):
        pass

    on_job_end = on_job_start


@pytest.fixture
def loader():
    setup_globals()
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        yield GlobalHydra.instance().config_loader()


@pytest.fixture
def jobs(loader, tmp_path):
    """Return the composer and master of a sweep, and its jobs' overrides."""

    def make(*overrides, folder=tmp_path / "sweep"):
        settings = [f"hydra.sweep.dir={folder}", "hydra/launcher=lockstep", *SWEEP[2:3]]
        master = loader.load_configuration("config", [*settings, *SWEEP[:2], SWEEP[3]], RunMode.MULTIRUN)
        composer = Composer(partial(loader.load_sweep_config, master), loader.list_groups(""))
        return composer, master, [[*SWEEP[:2], SWEEP[3], *each] for each in overrides]

    return make


EACH = [
    ["seed=7", "optim.betas=[0.8,0.99]"],
    ["seed=8", "optim.lr=1e-3", "tracking.note='two\n lines: x'"],
    ["data.shuffle_seed=${seed}", "data.drop_last=false"],
    ["data=digits", "trainer.patience=null", "tracking.name='07'"],
    ["seed=1", "tracking.name=1.0", "tracking.note=yes", "model=mlp", "model.hidden_dims=[64,32]"],
    ["optim.lr=1", "tracking.name='a=b'", "tracking.note='/a/b=c #d'", "tracking.experiment=a/b"],
]


def test_the_files_of_a_job_are_those_that_hydra_writes(jobs, loader, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    composer, master, overrides = jobs(*EACH)
    assert JobFolders.suit(composer, master, overrides)
    folders = JobFolders(composer, master, overrides, first=3)
    assert sorted(path.name for path in (tmp_path / "sweep").iterdir()) == list("345678")
    folders.write()
    folders.wait()
    for number, each in enumerate(overrides, 3):
        made = tmp_path / "sweep" / str(number) / ".hydra"
        ours = {name: (made / name).read_text() for name in FILES}
        composed = loader.load_sweep_config(master, each)
        with open_dict(composed):
            composed.hydra.job.id, composed.hydra.job.num = str(number), number
        context = HydraContext(config_loader=loader, callbacks=_NoCallbacks())
        run_job(
            lambda _: None,
            composed,
            "hydra.sweep.dir",
            "hydra.sweep.subdir",
            context,
            configure_logging=False,
        )
        for name in FILES:
            texts = [ours[name], (made / name).read_text()]
            if name == "hydra.yaml":  # long lines are folded at other words
                texts = [OmegaConf.to_container(OmegaConf.create(text)) for text in texts]
            assert texts[0] == texts[1], name


@pytest.mark.parametrize(
    "override",
    [
        "hydra.sweep.subdir=${hydra.job.override_dirname}",
        "+hydra.callbacks.mine._target_=hydra.experimental.callback.Callback",
        "hydra.sweep.dir=${hydra:runtime.cwd}/x",
        "hydra.job.config.override_dirname.kv_sep=${seed}",
    ],
)
def test_jobs_that_need_more_are_left_to_hydra(loader, override):
    master = loader.load_configuration("config", [override], RunMode.MULTIRUN)
    composer = Composer(partial(loader.load_sweep_config, master), loader.list_groups(""))
    assert not JobFolders.suit(composer, master, [["seed=1"]])


def test_jobs_whose_overrides_only_hydra_composes_are_left_to_it(jobs):
    composer, master, overrides = jobs(["seed=1"], ["+optim@second=adam"])
    assert JobFolders.suit(composer, master, overrides[:1])
    assert not JobFolders.suit(composer, master, overrides)


def test_a_folder_that_cannot_be_made_is_refused(jobs, tmp_path):
    (tmp_path / "file").touch()
    composer, master, overrides = jobs(["seed=1"], folder=tmp_path / "file")
    with pytest.raises(Refused, match=r"hydra\.sweep\.dir, hydra\.sweep\.subdir: "):
        JobFolders(composer, master, overrides)


def test_what_cannot_be_written_is_raised_at_the_end(jobs, tmp_path):
    composer, master, overrides = jobs(["seed=1"], ["seed=2"])
    folders = JobFolders(composer, master, overrides)
    (tmp_path / "sweep" / "1" / ".hydra").touch()
    folders.write()
    with pytest.raises(FileExistsError):
        folders.wait()
