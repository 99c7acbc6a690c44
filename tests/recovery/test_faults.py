"""What real commands make of real faults. `make faults` does it at length, see docs/reliability.md."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import mlflow
import pytest
from helpers.faults import EPOCH, contents, read_until, survive, wait_for_a_run_folder
from helpers.nets import NETS
from helpers.processes import until, workers_of
from helpers.servers import Server

DIGITS = ("-m", "data=digits", "trainer.log_every=10", "trainer.checkpoint_seconds=0.2")
# Two of four runs stop early, after about 35 epochs; their best epochs are 8 before that.
PATIENT = ("data.val_size=200", "trainer.patience=null,8", "trainer.monitor=val/accuracy")
FOUR = (*DIGITS, *PATIENT, "trainer.epochs=50", "seed=0,1", "tracking.pictures=none")
EIGHT = (*DIGITS, "trainer.epochs=2000", "seed=range(0,8)")
MIXED = (*DIGITS, "trainer.epochs=1000", "model.hidden_dims=[24,16]", "optim=sgd,adam,adamw", "seed=0,1")
BFLOAT16 = (*DIGITS, "trainer.epochs=3000", "trainer.precision=bfloat16", "seed=range(0,6)")
MODULES = (
    *(*DIGITS, "model=module", f"model.path={NETS}:ConvNet", "model.channels=2,3", "optim=sgd,adam"),
    *("trainer.epochs=40", "tracking.pictures=none"),
)
SHORT = (
    "-m",
    "data=digits",
    "model=logreg",
    "trainer.epochs=1",
    "seed=range(0,600)",
    "tracking.pictures=none",
)
_undisturbed = {}


def undisturbed(make_clone, arguments, experiment="digits"):
    """What the store holds after the sweep alone, and its lines of epochs; trained once a session."""
    if arguments not in _undisturbed:
        clone = make_clone()
        code, out, err = clone.quick(*arguments)
        assert (code, err) == (0, "")
        if arguments == FOUR:
            runs = [run["tags"] for run in contents(clone.store, experiment).values()]
            stopped = [tags["lockstep.stopped_at"] for tags in runs if tags["lockstep.stopped_at"]]
            assert len(stopped) == 2
        _undisturbed[arguments] = contents(clone.store, experiment), out.count(EPOCH)
    return _undisturbed[arguments]


def nothing_is_left(clone):
    return [path.name for path in (clone.root / "outputs" / "unfinished").iterdir()] == ["claims"]


@pytest.mark.parametrize(
    ("sweep", "share"),
    [
        (FOUR, None),
        *(
            pytest.param(*sweep, marks=pytest.mark.faults)
            for sweep in (
                (EIGHT, 0.3),
                (MIXED, 0.2),
                (BFLOAT16, 0.2),
                ((*MODULES, "trainer.epochs=200"), 0.1),
            )
        ),
    ],
)
def test_kills_at_random_moments_change_nothing(make_clone, kills, sweep, share):
    (want, lines), clone = undisturbed(make_clone, sweep), make_clone()
    survive(clone, sweep, round(kills * share) if share else 2, lines, seed=0)
    assert contents(clone.store, "digits") == want
    assert nothing_is_left(clone)


@pytest.mark.faults
def test_kills_while_short_runs_are_recorded_many_at_a_time_change_nothing(make_clone):
    (want, _), clone, moments = undisturbed(make_clone, SHORT), make_clone(), random.Random(0)
    for kill in range(3):
        before, process = n_recorded(clone), clone.start(*SHORT)
        if kill == 0:
            wait_for_a_run_folder(clone, process)
        else:
            until(partial(has_more, clone, before))
        time.sleep(moments.uniform(0, 0.02))  # while folders of recorded runs are removed
        process.kill()
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, "the sweep had ended before it was killed"
        assert n_recorded(clone) < 600
    code, _, err = clone.quick(*SHORT)
    assert code == 0, err
    assert n_recorded(clone) == len(want) - 1 == 600  # and their parent
    assert contents(clone.store, "digits") == want
    assert nothing_is_left(clone)


def has_more(clone, n_before):
    return n_recorded(clone) > n_before


def n_recorded(clone):
    """Return how many of the sweep's runs have ended in the store, which may not be there yet."""
    try:
        with closing(sqlite3.connect(f"file:{clone.root}/outputs/mlflow.db?mode=ro", uri=True)) as store:
            query = (
                "SELECT count(*) FROM runs JOIN tags USING (run_uuid) WHERE status = 'FINISHED' AND key = ?"
            )
            return store.execute(query, ["lockstep.run_key"]).fetchone()[0]
    except sqlite3.OperationalError:
        return 0


def test_killed_workers_change_nothing(make_clone):
    (want, _), clone = undisturbed(make_clone, FOUR), make_clone()
    process, killed = clone.start(*FOUR), []
    for number, line in enumerate(process.stdout):
        is_time = " epoch " in line and number >= 10 * len(killed) and len(killed) < 3
        if is_time and (left := workers_of(process.pid) - set(killed)):  # a killed one may not be gone yet
            killed.append(min(left))
            os.kill(killed[-1], signal.SIGKILL)
    assert (process.communicate()[1], process.returncode) == ("", 0)
    assert len(killed) == 3
    assert contents(clone.store, "digits") == want
    assert nothing_is_left(clone)


@pytest.mark.parametrize(
    ("sent", "times"),
    [
        pytest.param(signal.SIGINT, 2, marks=pytest.mark.faults),
        pytest.param(signal.SIGTERM, 2, marks=pytest.mark.faults),
    ],
)
def test_interruptions_say_so_and_change_nothing(make_clone, sent, times):
    (want, _), clone = undisturbed(make_clone, FOUR), make_clone()
    for _ in range(times):
        process = clone.start(*FOUR, "trainer.checkpoint_seconds=0")
        for _ in range(10):
            read_until(process, EPOCH)
        for pid in workers_of(process.pid):  # so that the runs can't end before the signal comes
            os.kill(pid, signal.SIGSTOP)
        process.send_signal(sent)
        sent_at = time.monotonic()
        _, err = process.communicate(timeout=60)
        assert time.monotonic() - sent_at < 20  # a store that answers is not waited for
        assert process.returncode == 128 + sent
        if sent == signal.SIGINT:
            assert "the same command trains the rest" in err
        states = {run["status"] for run in contents(clone.store, "digits").values()}
        assert "RUNNING" not in states
        assert "KILLED" in states
    assert clone.quick(*FOUR)[0] == 0
    got = contents(clone.store, "digits")
    assert {name: run["metrics"] for name, run in got.items()} == {
        name: run["metrics"] for name, run in want.items()
    }
    assert {run["status"] for run in got.values()} == {"FINISHED"}
    assert nothing_is_left(clone)


def interrupted(clone, arguments, signals, pauses, start):
    """Start a command in a group of its own, which gets signals, as a terminal sends them; its output, code.

    Args:
        pauses: before each signal, in seconds.
        start: what is waited for first: that it listens, or so many epochs.
    """
    process = clone.start_anew(*arguments, stderr=subprocess.STDOUT, start_new_session=True)
    until(lambda: is_listening(process.pid) or process.poll() is not None)
    for _ in range(start):
        read_until(process, EPOCH)
    for number, pause in zip(signals, pauses, strict=True):
        time.sleep(pause)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
    sent_at = time.monotonic()
    out, _ = process.communicate(timeout=60)
    assert time.monotonic() - sent_at < 20
    return out, process.returncode


def is_listening(pid):
    """Whether a process catches SIGTERM, as a command does before all else. Until then it is Python's."""
    with suppress(OSError):
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return bool(int(status["SigCgt"], 16) >> (signal.SIGTERM - 1) & 1)
    return False


@pytest.mark.parametrize(("sweep", "n"), [(FOUR, 2), pytest.param(EIGHT, 60, marks=pytest.mark.faults)])
def test_ctrl_c_once_and_twice_at_random_moments_never_hangs(make_clone, sweep, n):
    (want, lines), clone, moments = undisturbed(make_clone, sweep), make_clone(), random.Random(2)
    for k in range(n):
        number = signal.SIGTERM if k % 5 == 4 else signal.SIGINT
        in_training, is_once = k % 2 == 1, k % 3 == 2
        start = moments.randint(1, lines // (n + 1)) if in_training else 0
        pauses = [moments.uniform(0, 0.05 if in_training else 4), moments.uniform(0, 1)][: 2 - is_once]
        out, code = interrupted(clone, sweep, [number] * len(pauses), pauses, start)
        assert code == 128 + number, (k, out)
        assert "interrupted" in out
        assert "Traceback" not in out and "Exception ignored" not in out, (k, out)
    code, _, err = clone.quick(*sweep)
    assert (code, err) == (0, "")
    got = contents(clone.store, "digits")
    assert {name: run["metrics"] for name, run in got.items()} == {
        name: run["metrics"] for name, run in want.items()
    }
    assert {run["status"] for run in got.values()} == {"FINISHED"}
    assert nothing_is_left(clone)


@pytest.mark.mnist
@pytest.mark.faults
def test_kills_on_mnist_change_nothing(make_clone):
    sweep = ("-m", "trainer.epochs=10", "trainer.checkpoint_seconds=1", "seed=range(0,8)")
    (want, lines), clone = undisturbed(make_clone, sweep, "mnist"), make_clone()
    survive(clone, sweep, 5, lines, seed=1)
    assert contents(clone.store, "mnist") == want
    assert nothing_is_left(clone)


@pytest.mark.faults
def test_eight_sweeps_at_once_on_an_empty_store_lose_nothing(make_clone):
    clone = make_clone()
    sweeps = [
        (*DIGITS[:1], "data=digits", "trainer.epochs=5", f"seed=range({4 * k},{4 * k + 4})") for k in range(8)
    ]
    processes = [clone.start_anew(*sweep, stdout=subprocess.DEVNULL) for sweep in sweeps]
    for process in processes:
        assert (process.communicate(timeout=400)[1], process.returncode) == ("", 0)
    got = contents(clone.store, "digits", unique=False)
    runs = [run for run in got if run["tags"]["lockstep.kind"] == "run"]
    assert (len(got), len(runs)) == (8 + 32, 32)
    assert {run["status"] for run in got} == {"FINISHED"}
    assert sorted(int(run["params"]["seed"]) for run in runs) == list(range(32))
    for run in runs:  # 22 iterations an epoch; windows of 50 and a last one
        assert [step for step, _ in run["metrics"]["train/loss"]] == [50, 100, 110]
        assert [step for step, _ in run["metrics"]["test/accuracy"]] == [22, 44, 66, 88, 110]
        assert run["artifacts"].keys() == {
            *("config.yaml", "history.parquet", "predictions.parquet", "model/state_dict.pt"),
            *("samples.png", "confusion.png", "mistakes.png", "curves/loss.png", "curves/accuracy.png"),
            *(
                f"pca/{name}"
                for name in ("input.png", "hidden1.png", "hidden2.png", "explained_variance.json")
            ),
        }
    assert nothing_is_left(clone)


def test_two_identical_sweeps_at_once_train_each_run_once(make_clone):
    (want, lines), clone = undisturbed(make_clone, FOUR), make_clone()
    both = [clone.start(*FOUR) for _ in range(2)]
    outs = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [0, 0], outs
    assert contents(clone.store, "digits") == want
    assert sum(out.count(EPOCH) for out, _ in outs) == lines
    assert nothing_is_left(clone)


@pytest.mark.faults
def test_when_the_first_of_two_identical_sweeps_is_killed_the_second_goes_on(make_clone):
    (want, _), clone = undisturbed(make_clone, FOUR), make_clone()
    first = clone.start(*FOUR)
    read_until(first, EPOCH)
    workers = workers_of(first.pid)
    assert len(workers) >= 2
    try:
        for pid in workers:  # so that the first sweep cannot end
            os.kill(pid, signal.SIGSTOP)
        second = clone.start(*FOUR)
        assert f"by another command (process {first.pid}); waiting" in read_until(second, "by another")
    finally:
        for pid in (first.pid, *workers):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    _, err = second.communicate(timeout=200)
    assert (first.wait(), second.returncode, err) == (-signal.SIGKILL, 0, "")
    assert contents(clone.store, "digits") == want


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.mark.faults
def test_a_server_that_is_away_for_a_while_or_for_good(make_clone, server):
    long = [*FOUR, "trainer.epochs=1000"]
    clone, other, third = make_clone(), make_clone(), make_clone()
    # The server asks for no password, but is given one.
    uri = {"MLFLOW_TRACKING_URI": server.uri.replace("http://", "http://me:s3cret@")}
    assert clone.run(*long, "tracking.experiment=undisturbed", extra=uri)[0] == 0

    def disturbed(clone, experiment, seconds):
        process = clone.start(*long, f"tracking.experiment={experiment}", extra=uri)
        read_until(process, EPOCH)
        server.stop()
        if seconds is not None:
            time.sleep(seconds)
            server.start()
        _, err = process.communicate(timeout=400)
        return process.returncode, err

    code, _ = disturbed(other, "back", 30)
    assert code == 0
    code, err = disturbed(third, "away", None)
    assert code == 1
    assert "-m lockstep deliver" in err
    folder = third.root / "outputs" / "unfinished"
    assert str(folder) in err
    assert "s3cret" not in err
    files = [path for path in (third.root / "outputs").rglob("*") if path.is_file()]
    assert len(files) > 20
    assert not any(b"s3cret" in path.read_bytes() for path in files)
    server.start()
    deliver = [sys.executable, "-m", "lockstep", "deliver", str(folder)]
    for _ in range(2):
        done = subprocess.run(deliver, capture_output=True, text=True, env=os.environ | uri)
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "all is in the store"), done.stderr
    client = mlflow.MlflowClient(server.uri)

    def numbers(experiment):
        runs = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
        return {
            run.info.run_name: (
                run.info.status,
                {
                    key: [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, key)]
                    for key in run.data.metrics
                    if not key.startswith("time/")
                },
                sorted(file.path for file in client.list_artifacts(run.info.run_id)),
            )
            for run in runs
        }

    assert numbers("back") == numbers("away") == numbers("undisturbed")
    assert nothing_is_left(third)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 32 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("full", [pytest.param("store", marks=pytest.mark.faults), "unfinished"])
def test_a_full_disk_is_said_clearly_and_the_sweep_goes_on_when_there_is_room(make_clone, small_disk, full):
    (want, _), clone = undisturbed(make_clone, FOUR), make_clone()
    outputs = clone.root / "outputs"
    outputs.mkdir()
    if full == "store":
        store = f"sqlite:///{small_disk}/mlflow.db"
    else:
        (outputs / "unfinished").symlink_to(small_disk)
        store = clone.store
    uri = {"MLFLOW_TRACKING_URI": store}
    first = ("data=digits", "trainer.epochs=1", "tracking.experiment=first", "tracking.pictures=none")
    assert clone.quick(*first, extra=uri)[0] == 0
    room = os.statvfs(small_disk)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * (room.f_bavail * room.f_bsize - 60_000))
    code, _, err = clone.quick(*FOUR, extra=uri)
    assert code == 1
    assert "Traceback" not in err
    assert "No space left on device" in err or "database or disk is full" in err
    ballast.unlink()
    code, _, err = clone.quick(*FOUR, extra=uri)
    assert (code, err) == (0, "")
    assert contents(store, "digits") == want
