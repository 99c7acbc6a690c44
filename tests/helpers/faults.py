"""What the tests of faults share: a store's contents, to be compared, and sweeps that are killed."""

import random
import signal
import subprocess
import time
from hashlib import sha256
from pathlib import Path

import mlflow


def contents(uri, experiment, unique=True):
    """All that a store holds of an experiment, but for times, ids and who did it when.

    Of each run, by name: its status, reason, params, every metric point, every artifact's content (of a
    report, which holds times and ids, that it is there). Or, where names are not unique, a list of these.
    """
    client = mlflow.MlflowClient(uri)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id], max_results=10_000)
    names = {run.info.run_id: run.info.run_name for run in found}
    runs = []
    for run in found:
        keys = [key for key in run.data.metrics if not key.startswith("time/")]
        folder = Path(run.info.artifact_uri.removeprefix("file://"))
        tags = (
            "lockstep.kind",
            "lockstep.run_key",
            "lockstep.overrides",
            "lockstep.reason",
            "lockstep.pruned_at",
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
                str(path.relative_to(folder)): (
                    path.name == "report.html" or sha256(path.read_bytes()).hexdigest()
                )
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            },
        }
        runs.append((run.info.run_name, held))
    if not unique:
        return [held for _, held in runs]
    assert len(dict(runs)) == len(runs), f"some stand twice: {sorted(name for name, _ in runs)}"
    return dict(runs)


def survive(clone, arguments, kills, seed, sent=signal.SIGKILL, longest=7.0):
    """Start a sweep, kill it at a random moment, again and again, then let it end; how many kills hit."""
    moments, hit = random.Random(seed), 0
    for _ in range(kills):
        process = clone.start(*arguments, stdout=subprocess.DEVNULL)
        time.sleep(moments.uniform(0.5, longest))
        if process.poll() is None:
            hit += 1
            process.send_signal(sent)
        process.communicate(timeout=60)
    code, _, err = clone.run(*arguments)
    assert code == 0, err
    return hit
