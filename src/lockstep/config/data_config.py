"""The data sets that a config names, and the minibatches that a run draws from them."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from lockstep.config.frozen import MOST, Count, Frozen

# Hydra reads 255 as a number.
_Scale = Annotated[
    Literal["auto", "none", "255", "standardize"],
    BeforeValidator(lambda value: "255" if type(value) is int and value == 255 else value),
]


class AugmentConfig(Frozen):
    """Random shifts, by at most `shift` pixels, and flips: see `lockstep.data.augmentation`."""

    shift: int = Field(ge=0, le=MOST, default=0)
    flip: bool = False

    @property
    def is_on(self) -> bool:
        """Whether images are changed at all."""
        return self != AugmentConfig()


class _Stream(Frozen):
    """Settings of all data sets: `scale` of their features, see `lockstep.data.scaling`; minibatches.

    `fold`, one of `folds`, is the test set: see `lockstep.data.folds`. Without them it is the data set's own.
    """

    scale: _Scale = "auto"
    augment: AugmentConfig = AugmentConfig()
    batch_size: Count
    drop_last: bool
    val_size: int = Field(ge=0, le=MOST)
    shuffle_seed: int = Field(ge=0, lt=2**63)
    fold: int | None = Field(ge=0, le=MOST, default=None)
    folds: int | None = Field(ge=2, le=MOST, default=None)

    @model_validator(mode="after")
    def _fold_is_one_of_folds(self) -> Self:
        fold, folds = self.fold, self.folds
        if fold is None and folds is not None:
            raise ValueError(
                f"data.folds={folds}: needs data.fold, the one that is the test set;"
                f" for all of them in turn: -m 'data.fold=range(0,{folds})'"
            )
        if fold is not None and folds is None:
            raise ValueError(f"data.fold={fold}: needs data.folds, how many there are, such as 5")
        if fold is not None and folds is not None and fold >= folds:
            raise ValueError(f"data.fold={fold}: allowed: 0 to {folds - 1} (data.folds={folds})")
        return self


class DownloadedConfig(_Stream):
    """MNIST or Fashion-MNIST; `root` is the folder of the files, None for the user's cache folder."""

    name: Literal["mnist", "fashion_mnist"]
    root: str | None


class DigitsConfig(_Stream):
    """scikit-learn's digits."""

    name: Literal["digits"]


class ArraysConfig(_Stream):
    """The user's own .npz at `path`."""

    name: Literal["arrays"]
    path: str


# Hydra reads 2020, the name of a column, as a number.
_Name = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]
_Names = Annotated[tuple[_Name, ...], Field(strict=False)]


class TableConfig(_Stream):
    """The user's own table at `path`, a CSV or parquet file: see `lockstep.data.tables`.

    The test set is `test_path`, or `fold`, or else a share of the rows. `features` are columns, None for all
    but `drop`.
    """

    name: Literal["table"]
    path: str
    target: _Name
    features: _Names | None = None
    drop: _Names = ()
    missing: Literal["refuse", "impute"] = "refuse"
    test_size: float | None = Field(gt=0, lt=1, default=0.2)
    test_path: str | None = None
    split_seed: int = Field(ge=0, lt=2**32, default=0)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.test_path is not None and self.fold is not None:
            raise ValueError(f"data.test_path={self.test_path}: data.fold is the test set; leave one out")
        if self.test_path is not None or self.fold is not None:
            object.__setattr__(self, "test_size", None)  # so that runs of equal data have equal settings
        elif self.test_size is None:
            raise ValueError("data.test_size=null: needs data.test_path; allowed: 0 < data.test_size < 1")
        if self.features == ():
            raise ValueError(
                "data.features=[]: names no column; allowed: columns to predict from, or null for all"
            )
        if self.features is not None and self.drop:
            raise ValueError(f"data.drop=[{','.join(self.drop)}]: data.features names all columns to use")
        if self.target in (*(self.features or ()), *self.drop):
            key = "drop" if self.target in self.drop else "features"
            raise ValueError(f"data.{key}: names data.target={self.target}, which is what networks predict")
        if self.scale != "auto":
            raise ValueError(f"data.scale={self.scale}: data=table standardizes its numeric columns (auto)")
        return self


DataConfig = DownloadedConfig | DigitsConfig | ArraysConfig | TableConfig
