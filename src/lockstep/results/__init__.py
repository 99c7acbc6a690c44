"""Results of runs. Needs NumPy only.

- `history`: a run's measurements, epoch by epoch.
- `class_scores`: scores that count every class alike.
- `early_stopping`: when a run with a patience ends, and which epoch's weights it keeps.
- `run_result`: how a run ended; start reading here.
- `winner`: which run of a sweep is best, and repeats over seeds and folds.
- `majority`: whether runs are better than always predicting the most frequent class.
- `predictions`: a network's predictions on the instances of one split.
- `significance`: whether a difference is more than chance (needs SciPy).
- `ensemble`: which networks to average.
- `history_file`, `predictions_file`: both as artifacts (need pyarrow); `run_files`: the names of artifacts.
"""
