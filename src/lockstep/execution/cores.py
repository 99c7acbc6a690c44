"""The number of workers."""

from loky import cpu_count


def count_workers(n_jobs: int) -> int:
    """Return the number of workers that `n_jobs` asks for: n, or -1 for all cores, -2 for all but one, ..."""
    return n_jobs if n_jobs > 0 else max(1, cpu_count() + 1 + n_jobs)
