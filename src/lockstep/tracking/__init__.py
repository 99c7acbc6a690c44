"""MLflow: the only package that reads and writes a tracking store.

- `store`: a tracking store: experiments, runs, how they are found; start reading here.
- `opening`: opening a store, and making a new SQLite one in one piece.
- `run`: one MLflow run that is being recorded.
- `uploader`: brings results from run folders to the store, in a thread.
- `sweeps`: a recorded sweep, read back.
- `logged_model`: a run's network as a logged model.
"""
