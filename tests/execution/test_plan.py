"""Plans are pure: each job in one array, no array with two streams, workers that finish together."""

import pytest
from helpers.configs import LOGREG, MLP, run_config, sgd
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep.config.data_config import AugmentConfig
from lockstep.config.model_config import MLPConfig
from lockstep.config.optim_config import AdamConfig
from lockstep.data.description import DataDescription
from lockstep.execution import plan as plan_module
from lockstep.execution.plan import Need, cost, plan, state_bytes


def described(name, shape, n_train, n_test):
    return DataDescription(name, "0" * 32, shape, tuple("0123456789"), n_train, n_test, "a test")


DIGITS = described("digits", (8, 8), 1437, 360)
MNIST = described("mnist", (28, 28), 60_000, 10_000)
WORKSHOP = MLPConfig(name="mlp", hidden_dims=(256, 100), dropout=0.25, activation="relu")
ADAM = AdamConfig(name="adam", lr=0.001, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)

jobs = st.builds(
    run_config,
    model=st.sampled_from([LOGREG, MLP, WORKSHOP]),
    optim=st.sampled_from([sgd(), sgd(0.1), ADAM]),
    seed=st.integers(0, 9),
    epochs=st.integers(1, 20),
    precision=st.sampled_from(["float32", "float64"]),
    batch_size=st.sampled_from([32, 64]),
    shuffle_seed=st.integers(0, 2),
    val_size=st.sampled_from([0, 100]),
)


def plan_of(configs, n_jobs, shape=DIGITS, **limits):
    return plan(configs, [shape] * len(configs), n_jobs, **limits)


@settings(max_examples=200, deadline=None)
@given(st.lists(jobs, min_size=1, max_size=40), st.integers(1, 9), st.sampled_from([2**14, 2**20, 2**24]))
def test_each_job_is_in_one_array_and_no_array_mixes_streams(configs, n_jobs, array_bytes):
    planned = plan_of(configs, n_jobs, array_bytes=array_bytes)
    assert plan_of(configs, n_jobs, array_bytes=array_bytes) == planned
    assert sorted(k for array in planned.arrays for k in array.runs) == list(range(len(configs)))
    assert 1 <= planned.n_workers <= min(n_jobs, len(configs))
    assert planned.n_workers * planned.threads <= n_jobs
    for array in planned.arrays:
        members = [configs[k] for k in array.runs]
        assert len({(c.data, c.trainer.device, c.trainer.precision) for c in members}) == 1
        assert array.cost == pytest.approx(sum(cost(c, DIGITS) for c in members))
        sizes = [state_bytes(c, DIGITS) for c in members]
        assert array.bytes == sum(sizes)
        assert array.bytes <= array_bytes + max(sizes) or len(members) == 1
    costs = [array.cost for array in planned.arrays]
    assert costs == sorted(costs, reverse=True)
    # No worker is idle for longer than the longest run takes.
    total, longest = sum(costs), max(cost(c, DIGITS) for c in configs)
    assert planned.cost <= total / planned.n_workers + max(longest, max(costs) * (len(costs) > 1))


@pytest.mark.parametrize(
    ("n_runs", "n_jobs", "sizes", "threads"),
    [(1, 2, [1], 2), (2, 2, [1, 1], 1), (3, 2, [2, 1], 1), (8, 2, [4, 4], 1), (40, 2, [7] * 4 + [6] * 2, 1),
     (4, 16, [1] * 4, 4), (8, 1, [8], 1)],
)  # fmt: skip
def test_equal_runs_are_spread_evenly(n_runs, n_jobs, sizes, threads):
    planned = plan_of([run_config(WORKSHOP, seed=s) for s in range(n_runs)], n_jobs, MNIST)
    assert [len(array.runs) for array in planned.arrays] == sizes
    assert planned.threads == threads


def test_all_but_the_stream_may_differ_in_an_array():
    configs = [
        run_config(LOGREG, epochs=3),
        run_config(WORKSHOP, ADAM, seed=1),
        run_config(MLP, sgd(0.5), seed=2, epochs=1),
    ]
    [array] = plan_of(configs, 1).arrays
    assert array.runs == (0, 1, 2)
    [first, second] = plan_of([*configs, run_config(shuffle_seed=1)], 1).arrays
    assert {first.runs, second.runs} == {(0, 1, 2), (3,)}


def test_long_runs_go_first_and_workers_finish_together():
    configs = [run_config(WORKSHOP, epochs=epochs) for epochs in (1, 1, 1, 1, 4)]
    planned = plan_of(configs, 2, MNIST)
    assert [array.runs for array in planned.arrays] == [(0, 1, 2, 3), (4,)]
    assert planned.arrays[0].cost == pytest.approx(planned.arrays[1].cost)


def test_state_and_cost_of_the_workshops_perceptron():
    n_parameters = 784 * 256 + 256 + 256 * 100 + 100 + 100 * 10 + 10
    assert state_bytes(run_config(WORKSHOP), MNIST) == 2 * 4 * n_parameters
    assert state_bytes(run_config(WORKSHOP, precision="float64"), MNIST) == 2 * 8 * n_parameters
    assert state_bytes(run_config(WORKSHOP, ADAM), MNIST) == 5 * 4 * n_parameters
    assert state_bytes(run_config(WORKSHOP, sgd(clip_norm=1.0)), MNIST) == 3 * 4 * n_parameters
    # 0.5 s an epoch at 214 GFLOP/s, as measured (benchmarks/RESULTS.md); ten epochs take ten times as long.
    one, ten = (cost(run_config(WORKSHOP, epochs=epochs), MNIST) for epochs in (1, 10))
    assert one / 214e9 == pytest.approx(0.52, rel=0.1)
    assert ten == pytest.approx(10 * one)
    assert cost(run_config(LOGREG, epochs=1), MNIST) / 214e9 == pytest.approx(0.022, rel=0.3)


def test_runs_of_modules_are_planned_by_what_they_were_measured_to_need():
    slow, quick = Need(1000, step=1e9, row=1e6), Need(10, step=1e7, row=1e4)
    configs = [run_config(seed=seed, epochs=3, drop_last=False) for seed in range(5)]
    needs = [slow, quick, quick, quick, quick]
    planned = plan(configs, [DIGITS] * 5, 2, needs)
    assert [array.runs for array in planned.arrays] == [(0,), (1, 2, 3, 4)]
    assert planned.arrays[0].cost == 3 * (23 * 1e9 + 360 * 1e6)  # 1,437 instances in batches of 64
    assert planned.arrays[1].bytes == 4 * 2 * 4 * 10  # weights and gradients


def test_augmented_minibatches_cost_an_array_once_however_many_runs_share_them():
    def costs(n_runs, **stream):
        configs = [run_config(WORKSHOP, seed=seed, epochs=3, **stream) for seed in range(n_runs)]
        [array] = plan_of(configs, 1, MNIST).arrays
        return array.cost

    shifted = {"augment": AugmentConfig(shift=2)}
    once = 3 * 937 * 64 * 784 * plan_module.FLOPS_PER_AUGMENTED  # epochs, steps, instances, features
    assert costs(1, **shifted) - costs(1) == pytest.approx(once)
    assert costs(4, **shifted) - costs(4) == pytest.approx(once)
    assert costs(1, **shifted) / costs(1) == pytest.approx(1.07, abs=0.01)  # measured: 1.08


@pytest.mark.parametrize(("threads", "n_jobs", "n_workers"), [(1, 4, 4), (2, 4, 2), (3, 4, 1), (8, 4, 1)])
def test_workers_whose_runs_have_several_threads_are_fewer(threads, n_jobs, n_workers):
    configs = [run_config(seed=seed, threads=threads) for seed in range(8)]
    assert plan_of(configs, n_jobs).n_workers == n_workers
    mixed = [*configs, run_config()]
    arrays = plan_of(mixed, n_jobs).arrays
    assert all(len({mixed[k].trainer.threads for k in array.runs}) == 1 for array in arrays)
