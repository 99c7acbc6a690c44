"""Data sets and minibatches.

- `sources`: loading a data set, whose arrays are in files; start reading here.
- `array_files`: these files, kept for the next command.
- `datasets`: the same as tensors.
- `folds`: cross-validation, one fold being the test set.
- `description`: a data set without its tensors.
- `images`: flat instances in the shape that a network of images sees.
- `augmentation`: random shifts and flips of training images.
- `splits`: stratified splits of rows.
- `minibatches`: the validation split, and the order of training instances.
- `downloads`: MNIST and Fashion-MNIST, downloaded once; `idx`: their file format.
- `arrays`: the user's own arrays, checked.
- `tables`: the user's own table as a data set; `table_files`, `table_content`: its file, read;
  `table_checks`: what can't be used; `columns`: what columns become; `table_model`: a network with them.
- `used_features`: those that aren't 0 in every training instance.
- `labels`: labels of any kind, as class indices.
- `memory`: this machine's.
- `scaling`: features divided, standardized, or as they are.
"""
