"""What a sweep's runs prove: which networks differ from the best one, which settings do, and an ensemble.

Tests of significance are left to a worker: most have loaded SciPy, which takes a moment.
"""

import functools
from dataclasses import dataclass

import numpy as np

from lockstep.config.errors import Refused
from lockstep.execution import aside
from lockstep.report.wording import figure
from lockstep.results import significance
from lockstep.results.predictions import Predictions
from lockstep.results.run_result import RunResult
from lockstep.results.winner import Repeats
from lockstep.tracking import predictions
from lockstep.tracking.predictions import OfRun
from lockstep.tracking.store import Store
from lockstep.tracking.sweeps import Sweep

COMPARED = 20
"""Networks compared with the best one, or settings: so many best ones, itself included."""

TEST = "test/accuracy"

INSTANCES = tuple(
    f"data.{key}" for key in ("name", "path", "test_path", "test_size", "split_seed", "fold", "folds")
)
"""The settings that say which instances are tested."""


@dataclass(frozen=True)
class Network:
    """A network in the comparison.

    Attributes:
        accuracy, interval: on the test set, and its confidence interval; None without predictions.
        difference: from the best network; None for that one, and without predictions.
    """

    run: RunResult
    accuracy: float | None = None
    interval: tuple[float, float] | None = None
    difference: significance.Difference | None = None


@dataclass(frozen=True)
class Evidence:
    """What the report says about chance, and about the runs together.

    Attributes:
        networks: the best one first; empty if it has no predictions, or there is no other.
        n_instances: of the test set.
        settings: figures of settings with repeats, the best one first, each with the p-value of its
            difference; empty if fewer than two have repeats.
        chosen: the ensemble, None where there is none, for the reason `no_ensemble`.
        gain: of the ensemble over its best member.
    """

    networks: tuple[Network, ...]
    n_instances: int
    settings: tuple[tuple[Repeats, str, float | None], ...]
    chosen: predictions.Chosen | None
    no_ensemble: str
    gain: significance.Difference | None

    @property
    def compared(self) -> list[Network]:
        """Networks that were compared with the best one."""
        return [network for network in self.networks if network.difference is not None]

    @property
    def n_alike(self) -> int:
        """How many of them can't be told from it."""
        return sum(not network.difference.is_real for network in self.compared if network.difference)


def of(store: Store, sweep: Sweep) -> Evidence:
    """Return what the runs of a sweep prove."""
    predictions_of = functools.cache(functools.partial(predictions.read, store))
    networks, n_instances = _networks(sweep, predictions_of)
    chosen, no_ensemble, gain = None, "", None
    try:
        chosen = predictions.choose(sweep, predictions_of)
        alone_N, together_N = (of_split["test"].is_right_N for of_split in (chosen.alone, chosen.together))
        [gain] = aside.call(significance.compare_networks, alone_N, [together_N])
    except Refused as refused:
        no_ensemble = " ".join(refused.problems)
    return Evidence(networks, n_instances, _settings(sweep), chosen, no_ensemble, gain)


def _networks(sweep: Sweep, predictions_of: OfRun) -> tuple[tuple[Network, ...], int]:
    best = sweep.winner.representative if sweep.winner else None
    others = [run for row in sweep.rows for run in row.runs if run != best][: COMPARED - 1]
    of_best = _test(best, predictions_of) if best else None
    if best is None or of_best is None or not others:
        return (), 0
    found = [_test(run, predictions_of) for run in others]
    comparable = [
        test is not None and _has_instances_of(best, run) and np.array_equal(test.label_N, of_best.label_N)
        for run, test in zip(others, found, strict=True)
    ]
    right = [test.is_right_N for test, fits in zip(found, comparable, strict=True) if test and fits]
    differences = iter(aside.call(significance.compare_networks, of_best.is_right_N, right))
    networks = [Network(best, of_best.accuracy, aside.call(significance.interval, of_best.is_right_N))]
    for run, test, fits in zip(others, found, comparable, strict=True):
        if test is None or not fits:
            networks.append(Network(run))
        else:
            around = aside.call(significance.interval, test.is_right_N)
            networks.append(Network(run, test.accuracy, around, next(differences)))
    return tuple(networks), len(of_best.label_N)


def _has_instances_of(best: RunResult, run: RunResult) -> bool:
    """Tell whether two runs are tested on the same instances: others may have equal labels.

    A table and its copy in another format are the same data, by their digest.
    """
    if run.data_digest and run.data_digest == best.data_digest:
        return True
    return all(run.params.get(key) == best.params.get(key) for key in INSTANCES)


def _test(run: RunResult, predictions_of: OfRun) -> Predictions | None:
    return predictions_of(str(run.run_id)).get("test")


def _settings(sweep: Sweep) -> tuple[tuple[Repeats, str, float | None], ...]:
    best = sweep.winner
    others = [row for row in sweep.rows if row is not best and len(row.runs) > 1][: COMPARED - 1]
    if best is None or len(best.runs) < 2 or not others:
        return ()
    values = [[run.metrics[TEST] for run in row.runs] for row in (best, *others)]
    p_values = aside.call(significance.compare_settings, values[0], values[1:])
    pairs = zip((best, *others), (None, *p_values), strict=True)
    return tuple((row, figure(row, TEST), p_value) for row, p_value in pairs)
