"""Settings of optimizers."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lockstep.config.frozen import Frozen


class _OptimConfig(Frozen):
    """Settings of all optimizers; `lr` is the greatest learning rate of the schedule."""

    lr: float = Field(gt=0)
    schedule: Literal["constant", "cosine", "onecycle"] = "constant"
    warmup_epochs: float | None = Field(ge=0, default=None)
    clip_norm: float | None = Field(gt=0, default=None)


class SGDConfig(_OptimConfig):
    """Hyperparameters of torch.optim.SGD."""

    name: Literal["sgd"]
    momentum: float = Field(ge=0, lt=1)
    nesterov: bool
    weight_decay: float = Field(ge=0)

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("optim.nesterov=true: needs optim.momentum > 0")
        return self

    @property
    def has_buffer(self) -> bool:
        """Whether a step needs the momentum in a buffer of its own, beside the gradient."""
        return self.nesterov or (self.clip_norm is not None and self.momentum > 0)


_Beta = Annotated[float, Field(ge=0, lt=1)]


class AdamConfig(_OptimConfig):
    """Hyperparameters of torch.optim.Adam and torch.optim.AdamW."""

    name: Literal["adam", "adamw"]
    betas: Annotated[tuple[_Beta, _Beta], Field(strict=False)]
    eps: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
