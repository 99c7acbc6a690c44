"""One session: checked configs in, recorded results out.

- `session`: what happens to the runs of a command; start reading here.
- `checks`: data, devices and the store, before anything trains.
- `planning`: runs' names, and how they are spread over workers.
- `ledger`: each run's state, and what is still to do for it.
- `parent`: the sweep's parent run.
- `drawing`: pictures of the winner alone.
"""
