"""Settings of where and how runs are recorded. None of them changes a number."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from lockstep.config.frozen import Frozen

_KEY = re.compile(r"[\w.\-][\w.\- ]{0,249}")
"""The names that every MLflow store accepts."""


def _as_text(value: Any) -> Any:
    """Return a number as text: Hydra reads `tracking.name=2026` as one."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


_IS_TEXT = BeforeValidator(_as_text)


class TrackingConfig(Frozen):
    """The store, the experiment, which runs get pictures, and the user's own words.

    Attributes:
        uri: an MLflow tracking URI.
        weights: which runs keep their weights; `best` is a sweep's best run, or a run without a sweep.
        name: of the sweep, or of a run without a sweep; None for what it sweeps, or differs in.
        tags: of the run, and of its sweep's parent run.
        note: the start of their description.
        system_metrics: whether the sweep, or a run without one, gets metrics of the machine.
    """

    uri: str = Field(min_length=1)
    experiment: str = Field(min_length=1)
    pictures: Literal["all", "best", "none"]
    name: Annotated[str, Field(min_length=1, max_length=250), _IS_TEXT] | None = None
    tags: dict[str, Annotated[str, Field(max_length=5000), _IS_TEXT]] | None = None
    note: Annotated[str, Field(min_length=1, max_length=5000), _IS_TEXT] | None = None
    system_metrics: bool = False
    weights: Literal["all", "best", "none"] = "all"

    @model_validator(mode="after")
    def _pictures_need_weights(self) -> Self:
        if self.pictures == "best" and self.weights == "none":
            raise ValueError(
                "tracking.weights=none: tracking.pictures=best draws from the best run's weights; give"
                " tracking.weights=best, or tracking.pictures=none"
            )
        return self

    @field_validator("tags")
    @classmethod
    def _are_the_users(cls, tags: dict[str, str] | None) -> dict[str, str] | None:
        for key in tags or {}:
            if not _KEY.fullmatch(key):
                raise ValueError(
                    f"tracking.tags.{key}: allowed in a tag's name: letters, digits, spaces and _ - ."
                )
            if key.startswith(("mlflow.", "lockstep.")):
                raise ValueError(f"tracking.tags.{key}: names that start with mlflow. or lockstep. are taken")
        return tags
