"""Checks of a command's runs beyond single values: data, devices, the store."""

import logging
from collections.abc import Sequence
from functools import cache

from mlflow.exceptions import MlflowException

from lockstep.config.data_config import DataConfig
from lockstep.config.errors import Refused
from lockstep.config.model_config import LogRegConfig, MLPConfig
from lockstep.config.schema import RunConfig, TrainerConfig
from lockstep.data import sources
from lockstep.data.array_files import Source
from lockstep.data.description import DataDescription
from lockstep.data.memory import physical_bytes
from lockstep.execution.cores import lacks_bfloat16
from lockstep.execution.plan import Need, state_bytes
from lockstep.recovery import claims
from lockstep.recovery.run_folder import unfinished
from lockstep.sweep.planning import device_of, need_of
from lockstep.tracking.errors import message_of
from lockstep.tracking.store import Store

store_at = cache(Store)

log = logging.getLogger("lockstep")


def check_runs(configs: Sequence[RunConfig]) -> None:
    """Check the data and devices of runs.

    Raises:
        Refused: listing every problem.
    """
    problems: list[str] = []
    streams: dict[tuple[DataConfig, TrainerConfig], dict[object, RunConfig]] = {}
    for config in configs:
        streams.setdefault((config.data, config.trainer), {})[config.model, config.optim] = config
    for (stream, trainer), networks in streams.items():
        try:
            device = device_of(trainer)
            source = sources.load(stream)
            problems += sources.check_stream(stream, source.description)
            for config in networks.values():
                problems += check_network(config, source, device)
        except Refused as refused:
            problems += refused.problems
    uris = {config.tracking.uri for config in configs}
    if len(uris) > 1:
        problems.append("tracking.uri: the runs of a sweep are recorded in one store; give one value")
    for key in ("name", "tags", "note", "system_metrics", "weights"):
        if any(getattr(c.tracking, key) != getattr(configs[0].tracking, key) for c in configs):
            problems.append(f"tracking.{key}: of the sweep, not of one of its runs; give one value")
    if problems:
        raise Refused(problems)
    in_bfloat16 = [trainer for _, trainer in streams if trainer.precision == "bfloat16"]
    if any(device_of(trainer) == "cpu" for trainer in in_bfloat16) and lacks_bfloat16():
        # The workshop's MLP on Zen 4 without its units (ONEDNN_MAX_CPU_ISA=AVX512_CORE).
        log.warning(
            "trainer.precision=bfloat16: this CPU has no bfloat16 units; a step takes 2.7 times as long as in"
            " float32, or longer: trainer.precision=float32 is faster"
        )


_SIZES = ("channels", "hidden_dim1", "hidden_dim2", "hidden_dims")


def check_network(config: RunConfig, source: Source, device: str) -> list[str]:
    """Return why a run's network can't be trained on this device; empty if it can."""
    if isinstance(config.model, LogRegConfig | MLPConfig):
        if config.trainer.threads > 1:
            which = f"model={config.model.name} shares idle cores by itself, with the bits of one thread"
            return [f"trainer.threads={config.trainer.threads}: for model=cnn and module; {which}"]
        return check_memory(config, source.description) if device == "cpu" else []
    problems = []
    if device == "mps":  # whose random numbers have no state that a run could keep
        problems.append(f"trainer.device=mps: model={config.model.name} trains on the CPU and on CUDA")
    if config.trainer.precision == "bfloat16":
        problems.append(f"trainer.precision=bfloat16: model={config.model.name} trains in float32 or float64")
    if problems:
        return problems
    try:
        need = need_of(config, source)
    except Refused as refused:
        return list(refused.problems)
    return check_memory(config, source.description, need)


def check_memory(config: RunConfig, data: DataDescription, need: Need | None = None) -> list[str]:
    """Return why a run can't be trained in this machine's memory; empty if it can."""
    copies = 1 if config.trainer.patience is None else 2  # the best epoch's
    needed, memory = copies * state_bytes(config, data, need), physical_bytes()
    if needed <= memory or isinstance(config.model, LogRegConfig):
        return []
    given = ", ".join(f"model.{key}={value}" for key, value in config.model if key in _SIZES)
    given = given or f"model={config.model.name}"
    return [
        f"{given}: weights, gradients and optimizer state need {needed / 2**30:,.1f} GiB;"
        f" this machine has {memory / 2**30:,.1f} GiB of memory"
    ]


def check_store(configs: Sequence[RunConfig]) -> None:
    """Open the runs' store, creating it if needed; so this is the last check.

    Raises:
        Refused: if it can't be used.
    """
    claims.check(unfinished() / "claims")
    store = store_at(configs[0].tracking.uri)
    for name in {config.tracking.experiment for config in configs}:
        try:
            store.experiment_id(name)
        except MlflowException as error:
            raise Refused([f"tracking.experiment={name}: {message_of(error)}"]) from error
