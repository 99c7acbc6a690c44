"""Sweeps that no store holds."""

from lockstep.results.run_result import RunResult
from lockstep.results.winner import Ranking, Standings
from lockstep.tracking.sweeps import Sweep

BY_ACCURACY = Ranking("test/accuracy")


def sweep_of(points, swept=("optim.lr", "model.width"), ranking=BY_ACCURACY, pruned=()):
    runs = tuple(
        RunResult(
            name=f"run {k}",
            run_key=str(k),
            data_digest="",
            params=dict(zip(swept, values, strict=True)),
            overrides=(),
            status="FINISHED",
            metrics={ranking.metric: score},
            pruned_at=1 if k in pruned else None,
            run_id=str(k),
        )
        for k, (*values, score) in enumerate(points)
    )
    return Sweep("p", "sweep", "mnist", ("1",), "", "", 1.0, {}, Standings(runs, ranking), swept, None)


GRID = [("0.1", "32", 0.8), ("0.1", "64", 0.9), ("0.01", "32", 0.6), ("0.01", "64", 0.7)]
