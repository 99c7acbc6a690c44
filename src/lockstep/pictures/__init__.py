"""A run's pictures.

- `run_pictures`: all pictures of a run that has ended, as files; start reading here.
- `plots`: figures from arrays.
- `representations`: a network's feature spaces, projected and measured.
"""
