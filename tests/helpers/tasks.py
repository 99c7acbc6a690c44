"""Tasks of small runs, and what is received of them."""

from dataclasses import replace

from helpers.configs import MLP, quiet, run_config

from lockstep.data.datasets import load
from lockstep.execution.task import Task, TaskRun
from lockstep.results.history import Epoch, History


class Received:
    def __init__(self, n_runs):
        self.histories = [History() for _ in range(n_runs)]
        self.ends = {}

    def receive(self, number, event):
        assert number not in self.ends
        if isinstance(event, Epoch):
            self.histories[number].add(event)
        else:
            assert bool(event.metrics) == (not event.reason and self.histories[number].diverged_at is None)
            self.ends[number] = replace(event, metrics={}, artifacts={})


def tasks_of(configs, arrays, folder, exact=False):
    for k in range(len(configs)):
        (folder / str(k)).mkdir(parents=True)
    return [
        Task(
            tuple(TaskRun(k, configs[k], f"run {k}", folder / str(k)) for k in array),
            load(configs[0].data).description.digest,
            shared=folder,
            threads=1,
            exact=exact,
        )
        for array in arrays
    ]


def mlps(n_runs, **settings):
    return [quiet(run_config(MLP, seed=seed, **settings)) for seed in range(n_runs)]
