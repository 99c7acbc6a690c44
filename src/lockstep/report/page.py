"""The report of a sweep: one self-contained HTML file, made from the store alone."""

import base64
import io
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from jinja2 import Environment, PackageLoader, select_autoescape
from PIL import Image
from plotly.offline import get_plotlyjs

from lockstep.recovery.temporary import temporary_folder
from lockstep.report import charts, choices, evidence
from lockstep.report import columns as of_columns
from lockstep.report.charts import Chart
from lockstep.report.curves import learning_curves
from lockstep.report.wording import duration, figure, sentence, short, shown, when
from lockstep.results.run_result import RunResult, of_earlier_versions
from lockstep.results.winner import Repeats
from lockstep.tracking import links, recorded_run
from lockstep.tracking.store import Store
from lockstep.tracking.sweeps import Sweep

log = logging.getLogger("lockstep")

T = TypeVar("T")

TRAIN_SECONDS = "time/train_seconds"

SEPARATION = {
    "explained_variance": "variance on the plane",
    "silhouette": "silhouette",
    "silhouette_plane": "silhouette on the plane",
    "knn_accuracy": "accuracy of 5 nearest neighbours",
}
"""Headings by metric, see lockstep.pictures.representations.separation."""

CURVES_SHOWN = 50
"""The number of best runs with curves. More curves can't be told apart."""

PICTURE_WIDTH, PICTURE_QUALITY = 640, 82
"""Pixels, and WebP's quality: together a sixth of the bytes of the run's own picture."""


@dataclass(frozen=True)
class Picture:
    """A picture as a data URI, with a description in words."""

    title: str
    source: str
    text: str


def build(store: Store, sweep: Sweep) -> str:
    """Return a sweep's report as HTML."""
    rows = sweep.rows
    scores = _optional("scores", lambda: choices.scores_of(store, sweep)) or choices.last_scores(sweep)
    importance, shares = _optional("importances", lambda: choices.importances(sweep, scores)) or (None, {})
    drawn = [
        _optional("the chart of all runs", lambda: charts.parallel_coordinates(sweep)),
        _optional("learning curves", lambda: _curves(store, sweep)),
        importance,
        _optional("the chart of effects", lambda: choices.effects(sweep, scores)),
    ]
    best = sweep.winner.representative if sweep.winner else None
    worst = rows[-1].representative if len(rows) > 1 else None
    with temporary_folder() as folder:
        best_pictures, worst_pictures = (
            _optional(f"pictures of {run.name}", partial(_pictures, store, run, folder)) or [] if run else []
            for run in (best, worst)
        )
        of_best = partial(of_columns.importance, store, best, folder) if best else lambda: None
        columns = _optional("the importance of columns", of_best)
        best_mistakes, worst_mistakes = (
            _optional(f"mistakes of {run.name}", partial(_mistakes, store, run, folder)) or [] if run else []
            for run in (best, worst)
        )
    return render(
        "page.html.j2",
        sweep=sweep,
        sentence=sentence(sweep),
        columns=_columns(sweep) if rows else [],
        when=when(sweep),
        duration=duration,
        rows=[_cells(sweep, row) for row in rows],
        link=lambda run: links.run_link(store.uri, run.experiment_id, run.run_id),
        all_runs=sweep.link(store),
        charts=[(chart, chart.figure.to_json()) for chart in (*drawn, columns) if chart is not None],
        scores=scores.title,
        matters=max(shares, key=lambda key: shares[key]) if shares else "",
        spaces=_spaces(best) if best else [],
        best=best_pictures,
        worst=worst_pictures,
        best_mistakes=best_mistakes,
        worst_mistakes=worst_mistakes,
        evidence=_optional("what is more than chance", lambda: evidence.of(store, sweep)),
        best_name=best.name if best else "",
        worst_name=worst.name if worst else "",
        train_seconds=sum(run.metrics.get(TRAIN_SECONDS, 0.0) for run in sweep.runs),
        separation=SEPARATION.values(),
        short=short,
        earlier=of_earlier_versions(sweep.runs),
    )


def render(template: str, **values: object) -> str:
    """Return a page of one of this folder's templates."""
    environment = Environment(
        loader=PackageLoader("lockstep.report", "."),
        autoescape=select_autoescape(["j2"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(plotly=get_plotlyjs(), local=links.local(), **values)


def _optional(what: str, make: Callable[[], T]) -> T | None:
    """Return a part of the report, None where it can't be made: the others are worth a report."""
    try:
        return make()
    except Exception as error:
        log.warning("the report lacks %s: %s", what, error)
        return None


def _metrics(sweep: Sweep) -> list[str]:
    wanted = dict.fromkeys((sweep.metric, "val/accuracy", "test/accuracy", "test/loss", TRAIN_SECONDS))
    return [metric for metric in wanted if any(metric in run.metrics for run in sweep.runs)]


def _columns(sweep: Sweep) -> list[tuple[str, str]]:
    """Return the leaderboard's headings, and how a column is sorted first: the best on top."""
    score, *others = [
        (
            metric.replace(TRAIN_SECONDS, "training, s"),
            "ascending" if metric.endswith("/loss") or metric == TRAIN_SECONDS else "descending",
        )
        for metric in _metrics(sweep)
    ]
    swept = [(short(key), "descending") for key in sweep.swept]
    restored = [("best epoch", "ascending")] if _has_restored(sweep) else []
    return [("#", "ascending"), score, *swept, *others, *restored, ("run", "ascending")]


def _has_restored(sweep: Sweep) -> bool:
    return any(row.restored for row in sweep.rows)


def _cells(sweep: Sweep, row: Repeats) -> dict[str, object]:
    """Return a row of the leaderboard: score, values of the swept keys, other metrics, restored epoch."""
    values = [row.representative.params.get(key, "") for key in sweep.swept]
    score, *others = [(row.mean(metric), figure(row, metric)) for metric in _metrics(sweep)]
    restored = [(row.representative.restored_epoch, row.restored)] if _has_restored(sweep) else []
    return {
        "is_best": row == sweep.winner,
        "run": row.representative,
        "runs": row.runs,
        "colors": {run.run_id: sweep.colors[str(run.run_id)] for run in row.runs},
        "cells": [score, *((value, shown(value)) for value in values), *others, *restored],
    }


def _spaces(run: RunResult) -> list[tuple[str, list[str]]]:
    """Return the title of each feature space of a run, and its metrics as SEPARATION lists them."""
    names = dict.fromkeys(key.split("/")[1] for key in sorted(run.metrics) if key.startswith("space/"))
    found = []
    for name in sorted(names, key=lambda name: (name != "input", name)):
        values = [run.metrics.get(f"space/{name}/{key}") for key in SEPARATION]
        found.append((_title(name), ["" if value is None else f"{value:.3f}" for value in values]))
    return found


def _title(name: str) -> str:
    return "Input space" if name == "input" else f"Hidden layer {name.removeprefix('hidden')}"


def _curves(store: Store, sweep: Sweep) -> Chart | None:
    best = sweep.compared[:CURVES_SHOWN]
    curves = {
        metric: {str(run.run_id): recorded_run.curve(store, run, metric) for run in best}
        for metric in ("train/loss", sweep.metric)
    }
    return learning_curves(best, curves, sweep.colors)


def _pictures(store: Store, run: RunResult, folder: Path) -> list[Picture]:
    """Return pictures of a run's feature spaces, input first; empty if none were drawn."""
    explained = recorded_run.download(store, run, "pca/explained_variance.json", folder)
    if explained is None:
        return []
    pictures = []
    for name, ratio in sorted(json.loads(explained.read_text()).items(), key=lambda item: item[0] != "input"):
        path = recorded_run.download(store, run, f"pca/{name}.png", folder)
        if path is None:
            continue
        title = _title(name)
        text = f"{title} of {run.name}: the training instances on the first two principal components,"
        text += f" which explain {sum(ratio):.0%} of the variance; a colour for each class."
        pictures.append(Picture(title, _data_uri(path), text))
    return pictures


def _mistakes(store: Store, run: RunResult, folder: Path) -> list[Picture]:
    """Return the pictures of a run's mistakes, those that were drawn."""
    pictures = []
    for file, title in (("confusion.png", "Confusion matrix"), ("mistakes.png", "Most confident mistakes")):
        path = recorded_run.download(store, run, file, folder)
        if path is not None:
            text = f"{title} of {run.name} on the test set."
            pictures.append(Picture(f"{title} of {run.name}", _data_uri(path), text))
    return pictures


def _data_uri(path: Path) -> str:
    with Image.open(path) as image:
        height = round(image.height * PICTURE_WIDTH / image.width)
        small = image.convert("RGB").resize((PICTURE_WIDTH, height), Image.Resampling.LANCZOS)
    written = io.BytesIO()
    small.save(written, "WEBP", quality=PICTURE_QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(written.getvalue()).decode()}"
