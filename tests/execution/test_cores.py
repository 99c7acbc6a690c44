"""How many workers n_jobs asks for, and what the cores lack."""

import pytest

from lockstep.execution import cores


@pytest.mark.parametrize(("n_jobs", "n_workers"), [(1, 1), (12, 12), (-1, 8), (-2, 7), (-8, 1), (-20, 1)])
def test_negative_numbers_count_down_from_all_cores(monkeypatch, n_jobs, n_workers):
    monkeypatch.setattr(cores, "cpu_count", lambda: 8)
    assert cores.count_workers(n_jobs) == n_workers


@pytest.mark.parametrize(
    ("flags", "lacks"),
    [
        ("flags\t\t: avx2 avx512f\n", True),
        ("flags\t\t: avx512f avx512_bf16 amx_bf16\n", False),
        ("Features\t: asimd bf16\n", False),
        (None, False),  # not Linux: not known
    ],
)
def test_linux_says_whether_there_are_bfloat16_units(monkeypatch, tmp_path, flags, lacks):
    info = tmp_path / "cpuinfo"
    if flags is not None:
        info.write_text(flags)
    monkeypatch.setattr(cores, "_CPU_INFO", info)
    assert cores.lacks_bfloat16() is lacks
