"""How many workers n_jobs asks for."""

import pytest

from lockstep.execution import cores


@pytest.mark.parametrize(("n_jobs", "n_workers"), [(1, 1), (12, 12), (-1, 8), (-2, 7), (-8, 1), (-20, 1)])
def test_negative_numbers_count_down_from_all_cores(monkeypatch, n_jobs, n_workers):
    monkeypatch.setattr(cores, "cpu_count", lambda: 8)
    assert cores.count_workers(n_jobs) == n_workers
