"""Output on the terminal.

- `console`: the console that everything is printed on, and the log.
- `progress`: runs while they train; `run_table`: their table; `notebook`: both in a notebook.
- `columns`: tables that fit their width.
- `tables`: runs that have ended, and the plan of a dry run.
"""
