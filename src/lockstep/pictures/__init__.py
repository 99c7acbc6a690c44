"""A run's pictures.

- `run_pictures`: all pictures of a run that has ended, as files; start reading here.
- `plots`: figures from arrays; `comparison`: the learning curves of several runs.
- `mistakes`: the confusion matrix, and the most confident mistakes.
- `column_importance`: which columns of a table a network's predictions rest on.
- `representations`: a network's feature spaces, projected and measured; `layer_inputs`: any module's.
"""
