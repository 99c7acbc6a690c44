"""One session: checked configs in, recorded results out.

- `session`: what happens to the runs of a command; start reading here.
- `ledger`: each run's state, and what is still to do for it.
"""
