"""Carries out runs: plans them into arrays, trains these here, in workers or on a cluster.

- `plan`: which runs train together, on how many workers; pure. Start reading here.
- `task`: runs that train as one array; `task_training`: from their checkpoints to their artifacts.
- `executor`: gives tasks to an executor and reports the events of their runs; trains in this process.
- `workers`: an executor that trains in worker processes of this machine.
- `pool`: these processes, started and ended; `server`: what they do; `library_warnings`: what they keep.
- `cluster`: a connection to a Dask cluster; `cluster_members`: which of its workers train;
  `cluster_machine`: what decides that; `cluster_client`: Dask's client.
- `cluster_workers`: an executor that trains there; `cluster_following`: how it follows an attempt;
  `cluster_attempt`: what their workers do; `cluster_data`: the data sets that they train on.
- `aside`: a worker for what needs torch beside training; `stored_pictures`: such.
- `cores`: the number of workers.
- `collector`: Python's garbage collector, paused while imports load.
"""
