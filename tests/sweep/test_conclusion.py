"""What a sweep owes once its runs have ended, however often that is cut short."""

import mlflow
import pytest
from helpers.configs import LOGREG, job, with_pictures
from helpers.faults import contents
from helpers.records import carried_out

from lockstep.cli import leftovers
from lockstep.config.launcher_config import LauncherConfig
from lockstep.recovery.run_folder import folders, unfinished
from lockstep.sweep import drawing
from lockstep.sweep.session import NotUploaded
from lockstep.tracking import logged_model, patience, sweeps, ui

STEPS = {
    "the members": (sweeps, "record"),
    "the pictures": (drawing, "draw_winner"),
    "the description": (ui, "describe"),
    "the report": ("lockstep.report.stored", "write"),
    "the model": (logged_model, "log_model"),
}


def sweep(uri, folder):
    jobs = [job(uri, f"seed={seed}", model=LOGREG, seed=seed, val_size=100) for seed in (0, 1)]
    jobs = [with_pictures(request, "best") for request in jobs]
    return carried_out(jobs, ["seed=0,1"], folder=folder, launcher=LauncherConfig(n_jobs=1))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, empty_store):
    root = tmp_path_factory.mktemp("undisturbed")
    uri = f"sqlite:///{root}/mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCKSTEP_ROOT", str(root))
        sweep(uri, root / "sweep")
    return contents(uri, "digits"), n_models(uri)


def n_models(uri):
    return len(mlflow.MlflowClient(uri).search_logged_models(["1"]))


def patched(patch, step, fault):
    """Let a step end in a fault, before or after it is done."""
    module, name = step
    target = module if not isinstance(module, str) else __import__(module, fromlist=[name])
    patch.setattr(target, name, fault(getattr(target, name)))


def killed(call, is_done):
    def wrapper(*args, **kwargs):
        if is_done:
            call(*args, **kwargs)
        raise KeyboardInterrupt

    return wrapper


@pytest.mark.parametrize("step", STEPS)
def test_after_a_kill_the_same_command_or_deliver_does_the_rest(
    uri, tmp_path, monkeypatch, undisturbed, step
):
    is_done, delivers = step in ("the members", "the report"), step in ("the pictures", "the report")
    with monkeypatch.context() as patch:
        patched(patch, STEPS[step], lambda call: killed(call, is_done))
        with pytest.raises(KeyboardInterrupt):
            sweep(uri, tmp_path / "sweep")
    [left] = folders(unfinished())
    assert "its report or model is not uploaded yet" in "".join(leftovers.pending.listed(unfinished()))
    if delivers:
        assert leftovers.deliver(unfinished()) == []
    else:
        assert [run.is_stored for run in sweep(uri, tmp_path / "sweep")] == [True, True]
    assert not left.path.exists()
    assert (contents(uri, "digits"), n_models(uri)) == undisturbed
    assert (tmp_path / "sweep" / "report.html").exists()


@pytest.mark.parametrize("step", STEPS)
def test_one_bad_answer_of_the_store_costs_nothing_and_a_lasting_fault_is_no_success(
    uri, tmp_path, monkeypatch, undisturbed, step
):
    monkeypatch.setattr(patience, "RETRY_SECONDS", 0.01)
    answers = [ConnectionError("reset by peer"), TimeoutError()]

    def bad(call):
        def wrapper(*args, **kwargs):
            if answers:
                raise answers.pop()
            return call(*args, **kwargs)

        return wrapper

    with monkeypatch.context() as patch:
        patched(patch, STEPS[step], lambda call: lambda *_, **__: 1 / 0)
        with pytest.raises(NotUploaded, match="division by zero") as refused:
            sweep(uri, tmp_path / "sweep")
        assert f"-m lockstep deliver {unfinished()}" in str(refused.value)
    with monkeypatch.context() as patch:
        patched(patch, STEPS[step], bad)
        assert leftovers.deliver(unfinished()) == []
    assert answers == []
    assert (contents(uri, "digits"), n_models(uri)) == undisturbed
