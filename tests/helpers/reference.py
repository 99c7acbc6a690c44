"""Networks in float64 and what they are trained by, to hold arrays against."""

import torch
from torch.nn.functional import pad

from lockstep.config.optim_config import AdamConfig, SGDConfig
from lockstep.training.layers import draw_kept
from lockstep.training.networks import LogisticRegression, MultilayerPerceptron

N, F, C = 300, 12, 4


OPTIMS = {
    "sgd": SGDConfig(name="sgd", lr=0.1, momentum=0.0, nesterov=False, weight_decay=0.0),
    "sgd-momentum": SGDConfig(name="sgd", lr=0.05, momentum=0.9, nesterov=False, weight_decay=0.0),
    "sgd-decay": SGDConfig(name="sgd", lr=0.05, momentum=0.9, nesterov=False, weight_decay=0.01),
    "sgd-nesterov": SGDConfig(name="sgd", lr=0.05, momentum=0.8, nesterov=True, weight_decay=0.02),
    "adam": AdamConfig(name="adam", lr=0.01, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0),
    "adam-decay": AdamConfig(name="adam", lr=0.01, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.1),
    "adamw": AdamConfig(name="adamw", lr=0.01, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1),
}


def clipped(config, clip_norm):
    return config.model_copy(update={"clip_norm": clip_norm})


def module_of(family, seed):
    generator = torch.Generator().manual_seed(seed)
    if family == "logreg":
        module = LogisticRegression(F, C, generator)
    else:
        dims, dropout, activation, *more = family
        module = MultilayerPerceptron(F, C, dims, dropout, activation, generator, *more)
    return module.double()


FAMILIES = {
    "logreg": "logreg",
    "mlp": ((9, 7), 0.25, "relu"),
    "mlp-deep": ((8, 7, 6), 0.4, "tanh"),
    "mlp-no-dropout": ((11,), 0.0, "sigmoid"),
    "mlp-gelu": ((9, 7), 0.25, "gelu"),
    "mlp-input-dropout": ((9, 7), 0.25, "tanh", None, 0.2),
    "mlp-input-dropout-alone": ((6,), 0.0, "relu", None, 0.5),
    "mlp-max-norm": ((9, 6), 0.1, "gelu", 0.6),  # the initial norms are about 0.58
}


def dropout_mask(rate, n_rows, n_units, generator):
    """The mask of one hidden layer in one step: 0 or 1 / (1 - rate), B x H."""
    n_drawn = -(-n_rows * n_units // 16) * 16
    kept = torch.empty(n_drawn)
    draw_kept(rate, generator, torch.empty(n_drawn // 4, dtype=torch.int64), kept)
    return kept[: n_rows * n_units].view(n_units, n_rows).t().double() / (1 - rate)


def variant_of(image_CxHxW, variant, shift, flip):
    """A variant of an image, see lockstep.data.augmentation: mirrored or not, padded with zeros, cropped."""
    height, width, steps = *image_CxHxW.shape[1:], 2 * shift + 1
    is_mirrored, down, across = variant // steps**2, variant // steps % steps, variant % steps
    assert is_mirrored <= flip
    padded = pad(image_CxHxW.flip(2) if is_mirrored else image_CxHxW, (shift,) * 4)
    return padded[:, down : down + height, across : across + width]
