"""The importance of choices for a score, by Optuna, in a worker: scikit-learn takes a second to load."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Choice:
    """The values of a key, one for each run.

    Attributes:
        categories: the different values, in order; None for numbers.
        is_log: whether numbers are compared by their logarithms.
    """

    values: Sequence[float] | Sequence[str]
    categories: Sequence[str] | None = None
    is_log: bool = False


def shares(choices: Mapping[str, Choice], scores: Sequence[float]) -> dict[str, float]:
    """Return each key's mean decrease in impurity in a random forest, as a share."""
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

    def distribution(choice: Choice) -> BaseDistribution:
        if choice.categories is not None:
            return CategoricalDistribution(choice.categories)
        numbers = [float(value) for value in choice.values]
        return FloatDistribution(min(numbers), max(numbers), log=choice.is_log)

    space = {key: distribution(choice) for key, choice in choices.items()}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={key: choice.values[k] for key, choice in choices.items()},
                distributions=space,
                value=score,
            )
            for k, score in enumerate(scores)
        ]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        evaluator = optuna.importance.MeanDecreaseImpurityImportanceEvaluator(seed=0)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
        return {key: float(share) for key, share in found.items()}
