"""What survives a kill: state on disk from which the next command resumes.

- `run_folder`: all that is kept of a run that the store lacks; start reading here.
- `journal`: a run's events, line by line.
- `claims`: which process works on which run folder.
- `interrupts`: signals, deferred while something must not be torn.
"""
