"""MLflow: the only package that reads and writes a tracking store.

- `store`: a tracking store: experiments, runs, how they are found; start reading here.
- `opening`: opening a store, and making a new SQLite one in one piece.
- `tags`: the tags of MLflow runs.
- `run`: one MLflow run that is being recorded.
- `uploader`: uploads what run folders hold, in a thread.
- `pending`: uploads what earlier commands could not.
- `sweeps`: a sweep's members and winner, recorded and read back.
- `links`: where runs are seen in MLflow's UI.
- `environment`: what is recorded of every run: versions, commit, a note.
- `logged_model`: a run's network as a logged model.
"""
