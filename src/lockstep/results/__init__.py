"""Results of runs. Needs NumPy only.

- `history`: a run's measurements, epoch by epoch.
- `run_result`: how a run ended; start reading here.
- `winner`: which run of a sweep is best, and repeats over seeds.
- `history_file`: a history as an artifact (needs pyarrow).
"""
