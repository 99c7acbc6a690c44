"""Commands: run.py's, and the verbs of `python -m lockstep`.

- `command`: run.py's command line, checked as a whole, with its exit codes; start reading here.
- `doctor`, `reproduce`: the verbs of these names.
- `leftovers`: the verbs `status`, `drop` and `relocate`.
"""
