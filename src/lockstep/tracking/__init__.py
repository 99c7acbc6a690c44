"""MLflow: the only package that reads and writes a tracking store.

- `store`: a tracking store: experiments, runs, how they are found; start reading here.
- `opening`: opening a store, and making a new SQLite one in one piece.
- `tags`: the tags of MLflow runs.
- `run`: one MLflow run that is being recorded.
- `uploader`: uploads run folders, in a thread.
- `pending`: uploads folders that earlier commands left.
- `sweeps`: a sweep's members and winner, recorded and read back.
- `links`: where runs are seen in MLflow's UI.
- `environment`: a run's versions, commit and description.
- `recorded_data`: the data of a recorded run, loaded again.
- `logged_model`: a run's network as a logged model.
"""
