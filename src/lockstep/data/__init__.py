"""Data sets and the minibatches drawn from them.

- `datasets`: loading a data set, splitting it, its minibatches; start reading here.
- `downloads`: MNIST and Fashion-MNIST, fetched once.
- `arrays`: the user's own arrays, checked.
"""
