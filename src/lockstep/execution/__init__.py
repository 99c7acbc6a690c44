"""How runs are carried out: planned into arrays, trained in this process or in workers.

- `plan`: which runs train together, on how many workers; pure. Start reading here.
- `task`: runs that train as one array, from their checkpoints to their artifacts.
- `workers`: hands tasks to worker processes and reads what they tell.
- `pool`: the worker processes, started and ended.
- `collector`: Python's garbage collector, paused while imports load.
"""
