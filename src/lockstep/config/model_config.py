"""The networks that a config describes."""

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from lockstep.config.frozen import MOST, Count, Frozen


class LogRegConfig(Frozen):
    """Multiclass logistic regression."""

    name: Literal["logreg"]


class MLPConfig(Frozen):
    """Multilayer perceptron. `hidden_dims` are its widths; the other two repeat its first entries."""

    name: Literal["mlp"]
    hidden_dim1: Count | None = None
    hidden_dim2: Count | None = None
    hidden_dims: Annotated[tuple[Count, ...], Field(strict=False)] = ()
    dropout: float = Field(ge=0, lt=1)
    input_dropout: float = Field(ge=0, lt=1, default=0.0)
    activation: Literal["relu", "gelu", "tanh", "sigmoid"]
    max_norm: float | None = Field(gt=0, default=None)

    # A network has one description, however its widths were typed: the typed key is validated, then the other
    # is filled in from it.
    @model_validator(mode="before")
    @classmethod
    def _as_typed(cls, values: dict[str, Any]) -> dict[str, Any]:
        first_two = [values.get("hidden_dim1"), values.get("hidden_dim2")]
        derived = (
            {"hidden_dims"} if values.get("hidden_dims") == first_two else {"hidden_dim1", "hidden_dim2"}
        )
        return {key: value for key, value in values.items() if key not in derived}

    @model_validator(mode="after")
    def _fill_in(self) -> Self:
        dims = self.hidden_dims
        if "hidden_dims" not in self.model_fields_set:
            if self.hidden_dim1 is None or self.hidden_dim2 is None:
                name = "hidden_dim1" if self.hidden_dim1 is None else "hidden_dim2"
                raise ValueError(f"model.{name}=null: must be a valid integer; any depth: model.hidden_dims")
            dims = (self.hidden_dim1, self.hidden_dim2)
        if not dims:
            raise ValueError(
                "model.hidden_dims=[]: needs at least one width; model=logreg has no hidden layer"
            )
        object.__setattr__(self, "hidden_dims", dims)  # the model is frozen
        object.__setattr__(self, "hidden_dim1", dims[0])
        object.__setattr__(self, "hidden_dim2", dims[1] if len(dims) > 1 else None)
        return self


class CNNConfig(Frozen):
    """Convolutional network for images: a convolution, pooling and so on for each of `channels`."""

    name: Literal["cnn"]
    channels: Annotated[tuple[Count, ...], Field(strict=False, min_length=1)]
    kernel: int = Field(ge=1, le=MOST)
    hidden_dims: Annotated[tuple[Count, ...], Field(strict=False)]
    batch_norm: bool
    dropout: float = Field(ge=0, lt=1)

    @model_validator(mode="after")
    def _kernel_has_a_middle(self) -> Self:
        if self.kernel % 2 == 0:
            raise ValueError(f"model.kernel={self.kernel}: must be odd, so that maps keep their size")
        return self


class ModuleConfig(Frozen):
    """The user's own network: its settings are the arguments that `source` takes, plain data.

    Attributes:
        path: the file and the class or function in it, `/…/my_nets.py:ConvNet`.
        source: what identifies the code, see `lockstep.training.network_code`.
    """

    model_config = ConfigDict(extra="allow")

    name: Literal["module"]
    path: str
    source: str

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of the class or function."""
        return dict(self.__pydantic_extra__ or {})


ModelConfig = LogRegConfig | MLPConfig | CNNConfig | ModuleConfig
