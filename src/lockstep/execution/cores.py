"""This machine's cores: how many workers they carry, and what they lack."""

from pathlib import Path

from loky import cpu_count

_CPU_INFO = Path("/proc/cpuinfo")


def count_workers(n_jobs: int) -> int:
    """Return the number of workers that `n_jobs` asks for: n, or -1 for all cores, -2 for all but one, ..."""
    return n_jobs if n_jobs > 0 else max(1, cpu_count() + 1 + n_jobs)


def lacks_bfloat16() -> bool:
    """Tell whether Linux says that the cores have no bfloat16 units: AVX512_BF16, AMX_BF16, or Arm's BF16."""
    return _CPU_INFO.exists() and "bf16" not in _CPU_INFO.read_text()
