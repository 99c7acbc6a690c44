"""MLflow: the only package that reads and writes a tracking store.

- `store`: a tracking store: experiments, runs, how they are found; start reading here.
- `address`: a store's address, checked.
- `relocation`: a project that was moved or copied.
- `opening`: opening a store, and making a new SQLite one in one piece.
- `tags`: the tags of MLflow runs.
- `run`: one MLflow run that is being recorded.
- `uploader`: uploads run folders, in a thread.
- `errors`: a store's errors; `patience`: how long one that does not answer is waited for.
- `whole_runs`: short runs, recorded many at a time.
- `upload`: one run or parent on its way: its state, its last error, its next attempt.
- `pending`: folders that earlier commands left: uploaded, listed, abandoned.
- `sweeps`: a sweep's members and winner, recorded and read back.
- `ui`: how MLflow's UI shows a sweep; `colors`: a colour for each of its runs.
- `ids`: runs and sweeps found by the start of their id.
- `links`: where runs are seen in MLflow's UI, commands to paste; `serving`: serves that UI, and where.
- `environment`: a run's versions, commit and description.
- `resumable`: which runs in the store a command may resume.
- `stored`: which runs need not be trained again; `recorded_run`: a run read back;
  `recorded_data`: the data of a recorded run, loaded again.
- `predictions`: predictions of recorded runs, and the ensemble that they make.
- `system_metrics`: metrics of the machine while a command trains.
- `logged_model`: a run's network as a logged model; `saved_model`: in files, in a process with torch.
"""
