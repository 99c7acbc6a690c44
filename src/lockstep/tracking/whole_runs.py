"""Runs that have ended before the store has heard of them: recorded as a whole, many in one transaction.

A thousand short runs end while the first fifty are uploaded one by one. This is for a local SQLite file,
whose tables `_mlflow_compat` knows; to other stores they are uploaded like all runs.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lockstep.tracking import _mlflow_compat
from lockstep.tracking._mlflow_compat import WholeRun
from lockstep.tracking.address import local_path, sqlite_path
from lockstep.tracking.errors import is_outage
from lockstep.tracking.run import RecordedRun, data_input
from lockstep.tracking.store import Store, shortened
from lockstep.tracking.tags import TOKEN
from lockstep.tracking.upload import Snapshot, Upload

MOST = 200
"""The most runs of a transaction: one is written in about 0.2 s, for which the store is locked."""

REMOVERS = 8
"""Threads that remove folders: on some kernels each rmdir sleeps for 4 ms, and a run has three."""

LONGEST = 5000
"""The longest text in characters; MLflow itself shortens or refuses longer ones."""


def is_whole(upload: Upload) -> bool:
    """Tell whether a run of a sweep has ended and the store doesn't know it, as far as its folder says."""
    description = upload.description
    return (
        description.kind == "run"
        and upload.now.status in ("FINISHED", "FAILED")
        and upload.may_be_whole
        and upload.recorded is None
        and description.run_id is None
    )


def record_all(
    store: Store, uploads: Sequence[Upload], parent_of: Callable[[Upload], str | None]
) -> list[tuple[Upload, Snapshot, float, Exception | None]]:
    """Record runs in one transaction, and remove their folders.

    Args:
        parent_of: returns the MLflow run of a run's sweep.

    Returns:
        Those that were tried: the state that was, when it was tried before, and the error or None. The
        others are to be uploaded like all runs.
    """
    results: list[tuple[Upload, Snapshot, float, Exception | None]] = []
    whole: list[tuple[Upload, Snapshot, float, WholeRun]] = []
    for upload in uploads:
        now, before, upload.tried_at = upload.now, upload.tried_at, time.monotonic()
        try:
            run = _whole_run(store, upload, now, parent_of(upload))
        except Exception as error:  # of its folder or of the store
            upload.may_be_whole = is_outage(error)
            results.append((upload, now, before, error))
            continue
        upload.may_be_whole = run is not None
        if run is not None:
            whole.append((upload, now, before, run))
    try:
        runs = [run for *_, run in whole]
        inserted = _mlflow_compat.insert_runs(sqlite_path(store.uri), runs, TOKEN) if runs else []
    except Exception as error:  # it is locked, or damaged; nothing was recorded
        return [*results, *((upload, now, before, error) for upload, now, before, _ in whole)]
    ids = {run.run_id for run in inserted}
    recorded = list[tuple[Upload, Snapshot, float]]()
    for upload, now, before, run in whole:
        if run.run_id in ids:
            upload.description.run_id = run.run_id
            recorded.append((upload, now, before))
        else:
            upload.may_be_whole = upload.is_new = False  # the store may have it
    with ThreadPoolExecutor(REMOVERS) as pool:
        errors = pool.map(_removed, [upload for upload, *_ in recorded])
        return [*results, *((*of_upload, error) for of_upload, error in zip(recorded, errors, strict=True))]


def _removed(upload: Upload) -> OSError | None:
    """Remove a run's folder; return the error if that fails."""
    try:
        upload.folder.remove()
    except OSError as error:
        return error
    return None


def _whole_run(store: Store, upload: Upload, now: Snapshot, parent: str | None) -> WholeRun | None:
    """Return a run to be recorded, its artifacts copied; None where it must be uploaded like all runs.

    Raises:
        OSError: if an artifact can't be copied.
        Refused, Unreadable: if its folder's description can't be read.
    """
    description, history = upload.description, now.history
    data = description.data_description()
    if not store.uri.startswith("sqlite"):
        return None
    location = store.artifact_location(description.experiment)
    root = local_path(location)
    if data is None or root is None or now.status is None:
        return None
    config = description.run_config(store.uri)
    tags = {**store.tags_of(description, parent), **now.tags}
    params = config.param_texts()
    if any(len(text) > LONGEST for texts in (tags, params) for text in texts.values()):
        return None
    run_id = description.token  # so that a second attempt finds the same folder of artifacts
    if upload.folder.artifacts.exists():
        _copy(upload.folder.artifacts, root / run_id / "artifacts")
    recorded = RecordedRun(store.client, run_id, config.trainer.log_every)
    metrics, _ = recorded.unsent(history, last=True, at_end=now.metrics)
    ended_at = time.time_ns() // 1_000_000
    first = history.marks[0][1] if history.marks else ended_at
    return WholeRun(
        run_id,
        shortened(description.name),
        store.known_id(description.experiment),
        f"{location}/{run_id}/artifacts",
        now.status,
        started_at=first - round(1e3 * history.seconds / max(1, len(history.marks))),
        ended_at=ended_at,
        tags=tags,
        params=params,
        metrics=metrics,
        data=data_input(data),
    )


def _copy(folder: Path, to: Path) -> None:
    """Copy files, and check that all have arrived."""
    shutil.copytree(folder, to, copy_function=shutil.copyfile, dirs_exist_ok=True)
    for path in folder.rglob("*"):
        if path.is_file() and (to / path.relative_to(folder)).stat().st_size != path.stat().st_size:
            raise OSError(f"{path.name} was copied, but is not as long as it was")
