"""Which run of a sweep is best, and which runs are repeats of each other."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.results.run_result import RunFailed, RunResult
from lockstep.results.winner import Ranking, Standings, ranked

BY_ACCURACY = Ranking("val/accuracy")
BY_LOSS = Ranking("val/loss", maximize=False)


def run(lr, accuracy=None, seed=0, shuffle_seed=0, digest="digits", status="FINISHED", **more):
    params = {"model": "mlp", "optim.lr": str(lr), "seed": str(seed), "data.shuffle_seed": str(shuffle_seed)}
    metrics = {} if accuracy is None else {"val/accuracy": accuracy, "val/loss": 1 - accuracy}
    name = f"lr={lr} seed={seed} shuffle_seed={shuffle_seed}"
    key = f"{digest} {name}"
    return RunResult(name, key, digest, params, (f"optim.lr={lr}",), status, metrics, **more)


def winner(runs, ranking=BY_ACCURACY):
    best = Standings(tuple(runs), ranking).winner
    return None if best is None else [one.name for one in best.runs]


def test_a_lucky_seed_does_not_win_against_a_better_mean():
    runs = [run(0.1, 0.95, seed=0), run(0.1, 0.5, seed=1), run(0.2, 0.8, seed=0), run(0.2, 0.8, seed=1)]
    [best, other] = Standings(tuple(runs), BY_ACCURACY).rows
    assert (best.mean("val/accuracy"), best.std("val/accuracy")) == (0.8, 0.0)
    assert other.mean("val/accuracy") == pytest.approx(0.725)
    assert best.name == "lr=0.2"


def test_the_lowest_seed_stands_for_the_repeats_whatever_its_luck():
    best = Standings((run(0.1, 0.9, seed=10), run(0.1, 0.7, seed=9)), BY_ACCURACY).winner
    assert best.representative.params["seed"] == "9"
    best = Standings((run(0.1, 0.9, shuffle_seed=2), run(0.1, 0.7, shuffle_seed=1)), BY_ACCURACY).winner
    assert best.representative.params["data.shuffle_seed"] == "1"


@pytest.mark.parametrize("seed", ["seed", "shuffle_seed"])
def test_runs_that_differ_in_seeds_only_are_repeats(seed):
    [repeats] = ranked([run(0.1, 0.5 + k / 10, **{seed: k}) for k in range(3)], BY_ACCURACY)
    assert len(repeats.runs) == 3
    assert repeats.mean("val/accuracy") == pytest.approx(0.6)


def test_folds_of_the_same_instances_are_repeats_and_the_first_stands_for_them():
    def fold(k, pool="all"):
        one = run(0.1, 0.5 + k / 10, digest=f"{pool} {k}", pool_digest=pool)
        return replace(
            one, name=f"lr=0.1 f{k}", params={**one.params, "data.fold": str(k), "data.folds": "11"}
        )

    rows = ranked([*map(fold, (10, 9, 2)), fold(2, "others")], BY_ACCURACY)
    assert [(row.name, len(row.runs)) for row in rows] == [("lr=0.1", 3), ("lr=0.1 f2", 1)]
    assert rows[0].representative.params["data.fold"] == "2"


def test_the_same_run_asked_for_twice_counts_once():
    [repeats] = ranked([run(0.1, 0.5), run(0.1, 0.5), run(0.1, 0.7, seed=1)], BY_ACCURACY)
    assert [one.params["seed"] for one in repeats.runs] == ["0", "1"]


def test_a_run_that_several_requests_meant_has_all_their_names():
    asked = [run(0.1, 0.5), replace(run(0.1, 0.5), name="experiment=a"), run(0.2, 0.4), run(0.1, 0.5)]
    [best, other] = ranked(asked, BY_ACCURACY)
    assert (best.name, best.std("val/accuracy")) == (f"{asked[0].name} = experiment=a", None)
    [again, _] = ranked([*best.runs, *other.runs], BY_ACCURACY)  # as they are read back
    assert again.name == best.name
    assert other.name == asked[2].name


@pytest.mark.parametrize(
    "key",
    [
        "data.path",
        "data.root",
        "data.scale",
        "tracking.pictures",
        "tracking.experiment",
        "trainer.checkpoint_seconds",
    ],
)
def test_what_changes_no_number_tells_no_repeats_apart(key):
    runs = [run(0.1, 0.5 + seed / 10, seed=seed) for seed in range(2)]
    runs[1] = replace(runs[1], params={**runs[1].params, key: "another"})
    assert len(ranked(runs, BY_ACCURACY)) == 1


def test_other_data_is_no_repeat():
    assert len(ranked([run(0.1, 0.5, seed=0), run(0.1, 0.6, seed=1, digest="mnist")], BY_ACCURACY)) == 2


def test_a_loss_is_minimised():
    runs = [run(0.1, 0.9), run(0.2, 0.8), run(0.3, 0.95)]
    assert winner(runs, BY_LOSS) == [runs[2].name]
    assert winner(runs, replace(BY_LOSS, maximize=True)) == [runs[1].name]


def test_only_complete_runs_are_ranked():
    runs = [
        run(0.1, 0.9, status="FAILED"),
        run(0.2, 0.9, status="KILLED"),
        run(0.3, 0.9, pruned_at=4),
        run(0.4, 0.1),
        run(0.5),  # has no such metric
        run(0.6, float("nan")),
    ]
    assert winner(runs) == [runs[3].name]
    assert ranked(runs, BY_ACCURACY)[0].runs == (runs[3],)
    assert winner(runs[:3]) is None
    assert winner(runs[4:]) is None
    assert winner([]) is None


def test_where_seeds_confirm_an_unconfirmed_lucky_run_does_not_win():
    lucky = run(0.9, 0.99)
    confirmed = [run(0.1, 0.8 + k / 100, seed=k) for k in range(3)]
    worse = [run(0.2, 0.7, seed=k) for k in range(3)]
    ranking = replace(BY_ACCURACY, confirm_seeds=3)
    assert winner([lucky, *worse, *confirmed], ranking) == [one.name for one in confirmed]
    assert winner([lucky, *worse, *confirmed]) == [lucky.name]
    # Of runs that failed to be confirmed, those with the most repeats count.
    assert winner([lucky, *worse[:2]], ranking) == [one.name for one in worse[:2]]
    assert winner([lucky], ranking) == [lucky.name]


def test_equal_runs_keep_the_order_in_which_they_were_asked_for():
    assert winner([run(0.2, 0.5), run(0.1, 0.5)]) == ["lr=0.2 seed=0 shuffle_seed=0"]


def test_a_grid_is_ranked_by_validation_accuracy_where_any_run_has_it():
    test_only = replace(run(0.1), metrics={"test/accuracy": 0.99})
    assert Ranking.of([test_only]) == Ranking("test/accuracy")
    assert Ranking.of([test_only, run(0.2, 0.5)]) == BY_ACCURACY


def test_a_ranking_survives_as_text():
    for ranking in (BY_LOSS, replace(BY_ACCURACY, confirm_seeds=3)):
        assert Ranking.from_json(ranking.to_json()) == ranking


def test_a_value_is_that_of_a_complete_run_and_a_failure_is_raised():
    assert run(0.1, 0.5).value("val/accuracy") == 0.5
    assert run(0.1, 0.5, pruned_at=1).value("val/accuracy") is None
    with pytest.raises(RunFailed, match=r"^lr=0\.1 seed=0 shuffle_seed=0: it broke$"):
        run(0.1, status="FAILED", reason="it broke").value("val/accuracy")


RUNS = st.lists(
    st.builds(
        run,
        st.sampled_from([0.1, 0.2, 0.3]),
        st.floats(0, 1) | st.none(),
        seed=st.integers(0, 3),
        status=st.sampled_from(["FINISHED", "FINISHED", "FAILED"]),
        pruned_at=st.none() | st.just(2),
    ),
    max_size=12,
    unique_by=lambda one: one.run_key,
)


@given(RUNS, st.sampled_from([BY_ACCURACY, BY_LOSS]), st.randoms())
def test_every_complete_run_is_in_one_row_and_no_other_row_beats_the_winner(runs, ranking, random):
    rows = ranked(runs, ranking)
    assert sorted(one.run_key for row in rows for one in row.runs) == sorted(
        one.run_key for one in runs if one.is_complete
    )
    means = [mean for row in rows if (mean := row.mean(ranking.metric)) is not None]
    assert means == sorted(means, reverse=ranking.maximize)
    shuffled = random.sample(runs, len(runs))
    if len(set(means)) == len(means) and means:
        assert set(winner(shuffled, ranking)) == set(winner(runs, ranking))
