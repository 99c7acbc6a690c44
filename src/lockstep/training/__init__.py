"""Training: networks, and the array in which runs train together.

- `loop`: `train(configs, dataset)`, the one loop; start reading here.
- `array`: the training array, runs in and out.
- `stack`: runs of equal shapes, stepped by the same kernels.
- `layers`: forward and backward of linear layers, activations and dropout.
- `optim`, `schedule`: optimizers and learning rates.
- `networks`: the networks as `nn.Module`s.
- `device`: where a run computes. `random_streams`: a run's own generators.
- `checkpoint`: a run's state, from which it resumes.
- `artifacts`: config, history and weights as files.
- `bit_check`: whether this machine keeps a run's bits whatever trains beside it.
"""
