"""Commands: run.py's, the installed `lockstep`, and the verbs of `python -m lockstep`.

- `command`: run.py's command line, checked as a whole, and carried out; start reading here.
- `workers`: who trains a command's runs: workers of this machine, or a cluster.
- `environment`: MLflow's variables.
- `failures`: what errors that end a command say, and their exit codes.
- `run`: the function that Hydra calls; `program`: the installed command; `verbs`: which verb does what.
- `doctor`, `reproduce`: the verbs of these names; `comparison`: what `reproduce` says.
- `leftovers`: the verbs `status`, `drop` and `relocate`.
"""
