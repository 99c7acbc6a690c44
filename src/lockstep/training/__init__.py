"""Training: networks, and the array in which runs train together.

- `loop`: `train(configs, dataset)`, the one loop; start reading here.
- `array`: the training array, which steps several runs together.
- `scores`: what an evaluation measures.
- `stretch`: the next minibatches, gathered once for all runs.
- `run`: a run of a network of linear layers, as the array keeps it.
- `stack`: runs of equal shapes, stepped by the same kernels; `device_stack`: the same on a GPU;
  `batched_update`: its update of all runs at once.
- `module_stack`: a run of any other module, stepped by autograd; `fast_layers`: its dropout
  and max-pooling.
- `layers`: forward and backward of linear layers, activations and dropout; `joined`: one GEMM for all runs.
- `optim`, `schedule`: optimizers and learning rates.
- `networks`: the networks as `nn.Module`s; `network_code`: the user's own; `network_arguments`: their
  settings; `network_check`: whether they can be trained and resumed.
- `device`, `device_name`: the device that a run trains on. `random_streams`: a run's own generators.
- `checkpoint`: a run's state, from which it resumes.
- `artifacts`: config, history and weights as files.
- `prediction`: a trained network's predictions on the test and validation sets.
- `canary`: a hash that tells whether two machines give runs the same bits.
- `bit_check`: whether a run's bits stay the same on this machine when other runs train beside it.
"""
