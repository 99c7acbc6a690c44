"""The name of the device that a run trains on; for the CPU no torch is needed."""

from lockstep.config.errors import Refused
from lockstep.config.schema import TrainerConfig


def device_name(trainer: TrainerConfig) -> str:
    """Return the device that a run trains on; `auto` prefers CUDA, then MPS, then the CPU.

    Raises:
        Refused: if the device isn't available; the message names the available ones.
    """
    if trainer.device == "cpu":
        return "cpu"
    import torch  # here, because loading it takes 1.6 s

    available = ["cpu"]
    if torch.backends.mps.is_available() and trainer.precision != "float64":  # MPS has no float64
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    if trainer.device == "auto":
        return available[0]
    if trainer.device not in available:
        allowed = ", ".join(["auto", *available])
        raise Refused(
            [
                f"trainer.device={trainer.device}: not available on this machine"
                f" with trainer.precision={trainer.precision}; allowed here: {allowed}"
            ]
        )
    return trainer.device
