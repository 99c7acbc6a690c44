"""Results that a store has: which runs of a command need not be trained again."""

from collections.abc import Iterable

from mlflow.entities import Run

from lockstep.tracking import _mlflow_tables
from lockstep.tracking.patience import patient
from lockstep.tracking.store import PAGE, Store
from lockstep.tracking.tags import DIVERGED, PRUNED_AT, REASON, RUN_KEY

KEYS_PER_PAGE = 50
"""How many runs can be asked for one by one in the time in which PAGE runs are read (1 s, Zen 4)."""


def results(store: Store, experiment: str, run_keys: Iterable[str]) -> dict[str, Run]:
    """Return, by its key, the latest run that need not be trained again: FINISHED and not pruned, or
    diverged, which it would again. Keys that the store has no such run of are left out.

    Many keys are looked for in pages of all runs, the latest first: as long as there are pages, and one is
    read in less time than it takes to ask for each key that is left. A local SQLite file is read directly.
    """
    left, found = dict.fromkeys(run_keys), dict[str, Run]()
    runs = patient(_mlflow_tables.runs_with_tag)(store.uri, store.known_id(experiment), RUN_KEY, left)
    if runs is not None:
        for run in filter(_need_not_train, runs):
            found.setdefault(run.data.tags[RUN_KEY], run)
        return found
    page: str | None = None
    n_read = 0
    while page != "" and len(left) > KEYS_PER_PAGE * (n_read + 1):
        page = _take(store, experiment, f"tags.`{RUN_KEY}` LIKE '%'", page, left, found)
        n_read += 1
    for key in () if page == "" else list(left):
        _take(store, experiment, f"tags.`{RUN_KEY}` = '{key}'", None, left, found)
    return found


@patient
def _take(
    store: Store, experiment: str, search: str, page: str | None, left: dict[str, None], found: dict[str, Run]
) -> str:
    """Move keys from `left` to `found` if a page of runs has them; return the next page, or empty."""
    runs = store.client.search_runs(
        [store.known_id(experiment)],
        search,
        order_by=["attributes.start_time DESC"],
        max_results=PAGE,
        page_token=page,
    )
    for run in runs:
        if (key := run.data.tags[RUN_KEY]) in left and _need_not_train(run):
            found[key] = run
            del left[key]
    return runs.token or ""


def _need_not_train(run: Run) -> bool:
    has_diverged = run.data.tags.get(REASON, "").startswith(DIVERGED)
    is_complete = run.info.status == "FINISHED" and PRUNED_AT not in run.data.tags
    return is_complete or (run.info.status == "FAILED" and has_diverged)
