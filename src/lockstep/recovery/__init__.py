"""State on disk that survives a kill, from which the next command resumes.

- `run_folder`: a run's state that is not yet in the store; start reading here.
- `description`: what a run folder says of its run; `journal`: the run's events, line by line.
- `seal`: checksums of all of these; `mending`: what happens to a file that is damaged.
- `copies`: what one copy of a run folder has, and another lacks.
- `claims`: locks, so that one process works on a run folder.
- `outputs_id`: tells this outputs folder's records from those of other machines in the same store.
- `interrupts`: signals, deferred during writes that must not be cut short.
- `durable`: files replaced so that no part is left.
- `temporary`: temporary folders, removed even after a kill.
"""
