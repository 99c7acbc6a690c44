"""One session: checked configs in, recorded results out.

- `session`: trains and records the runs of a command; start reading here.
- `checks`: checks of data, devices and the store, before anything trains.
- `names`: of runs and sweeps; `planning`: the plan of their arrays.
- `arrays`: trains pending runs.
- `ledger`: the runs of a command; `entry`: one of them, and its state;
  `earlier`: what earlier numerics left of it.
- `parent`: the sweep's parent run; `conclusion`: what the sweep owes once its runs have ended.
- `drawing`: pictures of the winner alone.
"""
