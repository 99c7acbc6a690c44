"""Configs of small runs on digits, and of runs on MNIST."""

from lockstep.config.data_config import DigitsConfig, DownloadedConfig
from lockstep.config.model_config import LogRegConfig, MLPConfig
from lockstep.config.optim_config import SGDConfig
from lockstep.config.run_request import RunRequest
from lockstep.config.schema import RunConfig, TrackingConfig, TrainerConfig
from lockstep.config.search_config import SearchConfig

MLP = MLPConfig(
    name="mlp", hidden_dim1=24, hidden_dim2=16, hidden_dims=(24, 16), dropout=0.25, activation="relu"
)


LOGREG = LogRegConfig(name="logreg")


def sgd(lr=0.05, schedule="constant", clip_norm=None):
    settings = {"momentum": 0.9, "nesterov": False, "weight_decay": 0.0, "clip_norm": clip_norm}
    return SGDConfig(name="sgd", lr=lr, schedule=schedule, **settings)


def run_config(
    model=MLP,
    optim=None,
    seed=0,
    epochs=2,
    precision="float32",
    checkpoint_seconds=10.0,
    label_smoothing=0.0,
    class_weights=None,
    threads=1,
    patience=None,
    monitor="val/loss",
    **data,
):
    stream = {"batch_size": 64, "drop_last": True, "val_size": 0, "shuffle_seed": 0} | data
    return RunConfig(
        model=model,
        optim=optim or sgd(),
        data=DigitsConfig(name="digits", **stream),
        trainer=TrainerConfig(
            epochs=epochs,
            patience=patience,
            monitor=monitor,
            device="cpu",
            precision=precision,
            log_every=50,
            checkpoint_seconds=checkpoint_seconds,
            label_smoothing=label_smoothing,
            class_weights=class_weights,
            threads=threads,
        ),
        tracking=TrackingConfig(uri="unused", experiment="unused", pictures="all"),
        seed=seed,
    )


def quiet(config):
    return config.model_copy(update={"tracking": config.tracking.model_copy(update={"pictures": "none"})})


def job(uri, *overrides, epochs=1, **settings):
    config = run_config(epochs=epochs, **settings)
    tracking = config.tracking.model_copy(update={"uri": uri, "experiment": "digits"})
    return RunRequest(config.model_copy(update={"tracking": tracking}), overrides)


def with_pictures(job, pictures):
    tracking = job.config.tracking.model_copy(update={"pictures": pictures})
    return RunRequest(job.config.model_copy(update={"tracking": tracking}), job.overrides)


def search(**changes):
    values = {
        **{"n_trials": 8, "timeout": None, "sampler": "random", "metric": "val/accuracy", "direction": None},
        **{"seed": 0, "array_size": 4, "pruner": "halving", "min_epochs": None, "reduction_factor": 3},
        **{"finalists": 3, "extrapolate": 0.5, "confirm_seeds": 0, "confirm_best": 3},
    }
    return SearchConfig(**{**values, **changes})


STREAM = DownloadedConfig(name="mnist", batch_size=64, drop_last=True, val_size=0, shuffle_seed=0, root=None)
