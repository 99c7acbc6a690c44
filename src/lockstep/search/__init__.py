"""Adaptive searches: which trials are tried, and which of them are trained on.

- `session`: a search from its settings to the winner; start reading here.
- `space`: search spaces, as Optuna's distributions.
- `queues`: trials that wait, and which of them train next.
- `trials`: trials as tasks; promotes and prunes them when a task is done.
- `rules`: how trials are compared, and when; the rules of earlier versions.
- `rungs`: the points of a training at which trials are judged.
- `scores`: what trials are compared by at rungs: their losses, extrapolated.
- `halving`: the pruners that decide at rungs.
- `study`: the Optuna study, kept on disk in its `study_log`.
"""
