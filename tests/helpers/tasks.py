"""Tasks of small runs, and what is told of them."""

from dataclasses import replace

from helpers.configs import MLP, quiet, run_config

from lockstep.data.datasets import load
from lockstep.execution.task import Task, TaskRun
from lockstep.results.history import Epoch, History


class Heard:
    def __init__(self, n_jobs):
        self.histories = [History() for _ in range(n_jobs)]
        self.ends = {}

    def tell(self, job, event):
        assert job not in self.ends
        if isinstance(event, Epoch):
            self.histories[job].add(event)
        else:
            assert bool(event.metrics) == (not event.reason and self.histories[job].diverged_at is None)
            self.ends[job] = replace(event, metrics={})


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
