"""How runs are carried out: planned into arrays, trained in this process or in workers.

- `plan`: which runs train together, on how many workers; pure. Start reading here.
- `task`: runs that train as one array, from their checkpoints to their artifacts.
- `executor`: hands tasks to an executor and tells what happens to their runs; trains them in this process.
- `workers`: an executor that trains in worker processes of this machine.
- `pool`: these processes, started and ended; `preload`: what they have loaded before they start.
- `mapped`: data sets in files that workers map into their memory.
- `cores`: how many workers `n_jobs` asks for.
- `collector`: Python's garbage collector, paused while imports load.
"""
