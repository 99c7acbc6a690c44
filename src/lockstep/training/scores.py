"""What an evaluation measures of an array's runs. Suffixes: K runs, R of a stack, N instances, C classes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lockstep.results.class_scores import class_scores
from lockstep.results.history import Evaluation, FloatArray, HeldOut


@dataclass(frozen=True)
class Scores:
    """The scores of K runs on the same instances.

    Attributes:
        loss_K, accuracy_K: mean cross-entropy and accuracy.
        balanced_accuracy_K, f1_macro_K: see `class_scores`.
    """

    loss_K: FloatArray
    accuracy_K: FloatArray
    balanced_accuracy_K: FloatArray
    f1_macro_K: FloatArray

    @classmethod
    def of(cls, loss_K: Tensor, counts_KxCx2: Tensor, y_N: Tensor) -> "Scores":
        """Return the scores of losses, in `widest`, and of counts, as `counted` returns them."""
        accuracy_K = counts_KxCx2[:, :, 1].sum(1).to(loss_K.dtype) / len(y_N)
        n_C = torch.bincount(y_N, minlength=counts_KxCx2.shape[1]).cpu().numpy()
        counts = counts_KxCx2.cpu().numpy()
        of_classes = class_scores(counts[:, :, 1], counts.sum(axis=2), n_C)
        return cls(loss_K.cpu().numpy(), accuracy_K.cpu().numpy(), *of_classes)

    def evaluation(self, k: int, split: HeldOut, iteration: int) -> Evaluation:
        """Return the evaluation of run k."""
        of_each = (self.loss_K, self.accuracy_K, self.balanced_accuracy_K, self.f1_macro_K)
        return Evaluation(iteration, split, *(float(score_K[k]) for score_K in of_each))


def counted(prediction_RxN: Tensor, y_N: Tensor, n_classes: int) -> Tensor:
    """Return how many predictions of each class are wrong, and right: R x C x 2, int64."""
    n_runs = len(prediction_RxN)
    codes_RxN = torch.add(prediction_RxN == y_N, prediction_RxN, alpha=2)
    if n_runs > 1:
        codes_RxN += 2 * n_classes * torch.arange(n_runs, device=y_N.device)[:, None]
    return torch.bincount(codes_RxN.view(-1), minlength=2 * n_classes * n_runs).view(n_runs, n_classes, 2)
