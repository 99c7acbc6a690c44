"""Adaptive searches: which trials are tried, and which of them are trained on.

- `session`: a search from its settings to the winner; start reading here.
- `space`: what is searched, as Optuna's distributions.
- `trials`: trials as tasks, and what is decided when a task is done.
- `halving`: the epochs after which trials are judged, and the rule.
- `study`: the Optuna study that remembers all of it.
"""
