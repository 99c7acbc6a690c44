"""Adaptive searches: which trials are tried, and which of them are trained on.

- `session`: a search from its settings to the winner; start reading here.
- `space`: search spaces, as Optuna's distributions.
- `queues`: trials that wait, and which of them train next.
- `trials`: trials as tasks; promotes and prunes them when a task is done.
- `halving`: the epochs after which trials are judged, and the rule.
- `study`: the Optuna study, kept on disk in its `study_log`.
"""
