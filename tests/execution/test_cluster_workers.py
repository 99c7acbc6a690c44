"""What a command does with what a cluster's workers say, or don't: here they are scripted."""

import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from helpers.events import epoch
from helpers.processes import until
from helpers.tasks import mlps, tasks_of

from lockstep.data import sources
from lockstep.execution import cluster_attempt, cluster_data, cluster_following, cluster_workers
from lockstep.execution.cluster_attempt import News, Outcome
from lockstep.execution.cluster_machine import Machine
from lockstep.execution.cluster_members import Member
from lockstep.execution.cluster_workers import ClusterWorkers
from lockstep.recovery import copies
from lockstep.recovery.copies import Changes, Has
from lockstep.recovery.journal import Ended
from lockstep.recovery.run_folder import RunFolder

MACHINE = Machine("a", "a:cache", "1", "2", {})


class Client:
    """Dask's client, of workers that do as a test says.

    Attributes:
        news: called with an attempt's number, from 0, for each question.
        orders: what workers were asked to train.
    """

    status = "running"

    def __init__(self):
        self.news, self.orders, self.error, self.stays = lambda n: None, [], None, 0

    def run(self, function, *arguments, workers):
        [address] = workers
        if function is cluster_data.find:
            return {address: True}
        if function is cluster_attempt.receive:
            self.orders.append(arguments[0])
            if self.error is not None:
                raise self.error
        if function is cluster_attempt.stay:
            self.stays += 1
        if function is cluster_attempt.news:
            time.sleep(0.01)
            number = [order.identity for order in self.orders].index(arguments[0])
            return {address: self.news(number)}
        return {address: None}

    def submit(self, *_, **__):
        return SimpleNamespace(status="pending")


class Cluster:
    """One worker, with two slots."""

    def __init__(self):
        self.client, self.refused, self.come_back = Client(), [], self.join
        self.members = SimpleNamespace(refuse=self.refuse)
        self.join()

    def join(self):
        self.members.training = self.members.all = {"tcp://a": Member("tcp://a", "a", 2, MACHINE, "", True)}

    def leave(self):
        self.members.training = self.members.all = {}

    def look(self):
        pass

    def refuse(self, member, reason):
        self.refused.append((member.name, reason))
        self.members.training = {}


@pytest.fixture
def cluster():
    return Cluster()


@pytest.fixture
def tasks(tmp_path):
    """A task of two runs, and one of another."""
    return tasks_of(mlps(3), [[0, 1], [2]], tmp_path / "here")


@pytest.fixture
def reported():
    return []


@pytest.fixture
def executor(cluster, tasks):
    source = sources.load(tasks[0].runs[0].config.data)
    made = ClusterWorkers(cluster, [source], lambda numbers, machine: None)
    yield made
    made.kill()


def wait(executor, reported, seconds=20):
    """The tasks that have ended, once one has."""
    found = []
    until(lambda: found.extend(executor.wait(lambda *event: reported.append(event))) or found, seconds)
    return found


def written(tmp_path, number, *events, checkpoint=None):
    """What a worker's copy of a run's folder has."""
    folder = RunFolder(tmp_path / "there" / str(number))
    folder.path.mkdir(parents=True, exist_ok=True)
    for event in events:
        folder.journal.append(event)
    if checkpoint is not None:
        folder.keep(1, checkpoint)
    return folder


def test_a_worker_that_fails_before_any_news_is_refused_not_asked_for_ever(
    executor, cluster, tasks, reported, monkeypatch
):
    monkeypatch.setattr(cluster_workers, "REST_SECONDS", 0.05)
    cluster.client.error = ValueError("what the disk said")
    executor.submit(tasks[0])
    until(lambda: executor.wait(lambda *event: reported.append(event)) or cluster.refused, 20)
    assert cluster.refused == [("a", "ValueError: what the disk said")]
    assert len(cluster.client.orders) == cluster_workers.ATTEMPTS and not reported
    cluster.join()
    cluster.client.error = None
    cluster.client.news = lambda n: News({0: Changes(), 1: Changes()}, Outcome({}, "over"))
    assert wait(executor, reported) == [tasks[0]]
    assert reported == [(0, Ended("over")), (1, Ended("over"))]


def test_a_task_whose_parts_are_over_at_once_ends_once(executor, cluster, tasks, reported, monkeypatch):
    monkeypatch.setattr(cluster_workers, "ATTEMPTS", 1)
    cluster.client.news = lambda n: News({0: Changes(), 1: Changes()})
    executor.submit(tasks[0])
    for n_attempts in (1, 2):  # of both runs; of each
        have_begun = lambda n=n_attempts: (  # noqa: E731
            executor.wait(lambda *event: None)
            or [attempt.has_begun for attempt in executor._attempts.values()] == [True] * n
        )
        until(have_begun, 20)
        cluster.leave()
        ended = executor.wait(lambda *event: reported.append(event))
        cluster.join()
    assert ended == [tasks[0]]
    assert sorted(number for number, _ in reported) == [0, 1]
    assert {event.reason.partition(":")[0] for _, event in reported} == {
        "1 workers in a row were lost while they trained it; the last one"
    }


def test_a_pause_on_a_full_disk_is_a_pause(executor, cluster, tasks, reported, tmp_path):
    task = replace(tasks[1], pause_at=2)
    there = written(tmp_path, 2, epoch((0.5, 0.25)))
    no_room = Outcome({}, "OSError: No space left", is_no_room=True)
    cluster.client.news = lambda n: News({2: copies.changes(there, Has(), {})}, no_room)
    executor.submit(task)
    assert wait(executor, reported) == [task]
    assert [number for number, _ in reported] == [2]
    assert cluster.refused == [("a", "OSError: No space left")]


def test_a_checkpoint_that_comes_after_its_runs_pause_is_kept(executor, cluster, tasks, reported, tmp_path):
    task = replace(tasks[1], pause_at=2)
    there = written(tmp_path, 2, epoch((0.5, 0.25)))
    first = copies.changes(there, Has(), {})
    later = copies.changes(written(tmp_path, 2, checkpoint=b"weights"), Has().after(first), {})
    assert first.journal and first.checkpoint is None and later.checkpoint == (1, b"weights")
    said = iter([News({2: first}), News({2: later}), News({2: Changes()}, Outcome({}))])
    cluster.client.news = lambda n: next(said)
    executor.submit(task)
    assert wait(executor, reported) == [task]
    [(n_events, path)] = RunFolder(task.runs[0].folder).checkpoints().items()
    assert (n_events, path.read_bytes()) == (1, b"weights")


def test_a_worker_whose_answer_takes_long_hears_of_the_command(
    executor, cluster, tasks, reported, monkeypatch
):
    monkeypatch.setattr(cluster_following, "LATE_SECONDS", 0.1)
    has_answered = threading.Event()

    def news(n):
        assert has_answered.wait(30)
        return News({2: Changes()}, Outcome({}, "over"))

    cluster.client.news = news
    executor.submit(tasks[1])
    until(lambda: executor.wait(lambda *event: None) or cluster.client.stays, 20)
    has_answered.set()
    assert wait(executor, reported) == [tasks[1]]


def test_a_run_whose_folder_cannot_be_read_fails_alone(executor, cluster, tasks, reported):
    RunFolder(tasks[0].runs[1].folder).journal.path.write_bytes(b"what was never written\n")
    cluster.client.news = lambda n: News({0: Changes()}, Outcome({}, "over"))
    executor.submit(tasks[0])
    assert wait(executor, reported) == [tasks[0]]
    (damaged, reason), last = reported
    assert damaged == 1 and reason.reason.startswith("Damaged") and last == (0, Ended("over"))
    assert [[run.number for run in order.task.runs] for order in cluster.client.orders] == [[0]]
    assert not cluster.refused
