"""What the tests of faults share: a store's contents, to be compared, and sweeps that are killed."""

import json
import random
import signal
import time
from hashlib import sha256
from pathlib import Path

import mlflow

EPOCH = "  epoch "
"""Of a line that a command prints after each epoch of an array."""


def content(path, names):
    """What an artifact holds; of a report that it is there, of a list of runs their names."""
    if path.name == "members.json":
        return [names[run_id] for run_id in json.loads(path.read_text())["runs"]]
    return path.name == "report.html" or sha256(path.read_bytes()).hexdigest()


def contents(uri, experiment, unique=True, served=""):
    """All that a store holds of an experiment, but for times, ids and who did it when.

    Of each run, by name: its status, reason, params, every metric point, every artifact's content (of a
    report, which holds times and ids, that it is there). Or, where names are not unique, a list of these.

    Args:
        served: the folder of the artifacts that a server keeps.
    """
    client = mlflow.MlflowClient(uri)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id], max_results=10_000)
    names = {run.info.run_id: run.info.run_name for run in found}
    runs = []
    for run in found:
        keys = [key for key in run.data.metrics if not key.startswith("time/")]
        folder = Path(run.info.artifact_uri.removeprefix("file://").replace("mlflow-artifacts:", str(served)))
        tags = (
            "lockstep.kind",
            "lockstep.run_key",
            "lockstep.overrides",
            "lockstep.reason",
            "lockstep.pruned_at",
            "lockstep.stopped_at",
            "lockstep.restored_epoch",
        )
        held = {
            "status": run.info.status,
            "parent": names.get(run.data.tags.get("mlflow.parentRunId")),
            "tags": {tag: run.data.tags.get(tag) for tag in tags},
            "params": run.data.params,
            "data": [(i.dataset.name, i.dataset.digest) for i in run.inputs.dataset_inputs],
            "timed": sorted(set(run.data.metrics) - set(keys)),
            "metrics": {
                key: sorted((p.step, p.value) for p in client.get_metric_history(run.info.run_id, key))
                for key in keys
            },
            "artifacts": {
                str(path.relative_to(folder)): content(path, names)
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            },
        }
        runs.append((run.info.run_name, held))
    if not unique:
        return [held for _, held in runs]
    assert len(dict(runs)) == len(runs), f"some stand twice: {sorted(name for name, _ in runs)}"
    return dict(runs)


def survive(clone, arguments, kills, lines, seed, extra=()):
    """Start a sweep and kill it, so many times, then let it end.

    The first kill comes as the first run's folder appears, each later one a random number of epochs after its
    command's start. However fast the machine is, each of them finds the sweep under way.

    Args:
        lines: that an undisturbed sweep prints of epochs.
        extra: added to the environment.
    """
    moments = random.Random(seed)
    for kill in range(kills):
        process = clone.start(*arguments, extra=extra)
        if kill == 0:
            wait_for_a_run_folder(clone, process)
        else:
            for _ in range(moments.randint(1, lines // (kills + 1))):
                read_until(process, EPOCH)
            time.sleep(moments.uniform(0, 0.02))  # about an epoch: a kill may come anywhere within one
        process.kill()
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, "the sweep had ended before it was killed"
    code, _, err = clone.quick(*arguments, extra=extra)
    assert code == 0, err


def read_until(process, text):
    """Read what a command prints, up to the first line with this text; return the line."""
    for line in process.stdout:
        if text in line:
            return line
    raise AssertionError(f"{text!r} was not printed; exit code {process.wait()}: {process.stderr.read()}")


def wait_for_a_run_folder(clone, process):
    while not list((clone.root / "outputs").glob("unfinished/*/")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)
