"""The user's own tables: Lockstep against scikit-learn's own pipeline, on the same five folds.

`python -m benchmarks.tables <file>.csv:<target>[:<column to drop>,...] ...` prints a row for each table and
model: mean test accuracy ± standard deviation over the folds, and the seconds of a fit. Both impute missing
values, standardize numbers and encode text one-hot. The perceptron has one hidden layer of 100 units and
trains 50 epochs with Adam, in minibatches of 32 (200 from 2,000 rows on). scikit-learn's logistic regression
is fitted by L-BFGS, Lockstep's by Adam.
"""

import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import lockstep
from lockstep.data.folds import divided

FOLDS, EPOCHS = 5, 50


def ours(path: str, target: str, drop: Sequence[str], batch_size: int, *model: str) -> tuple[Any, float]:
    """Return the folds' test accuracies, and the mean seconds of a fit."""
    columns = (f"data.target={json.dumps(target)}", f"data.drop={json.dumps(list(drop))}")
    data = ("data=table", f"data.path={path}", *columns, "data.missing=impute", "data.drop_last=false")
    folds = (f"data.folds={FOLDS}", f"data.fold=range(0,{FOLDS})", f"trainer.epochs={EPOCHS}", "optim=adam")
    kept = (f"data.batch_size={batch_size}", "tracking.pictures=none", "tracking.weights=none")
    runs = lockstep.sweep(*data, *folds, *kept, *model).runs
    seconds = [run.metrics["time/train_seconds"] for run in runs]
    return np.array([run.metrics["test/accuracy"] for run in runs]), float(np.mean(seconds))


def theirs(
    table: pd.DataFrame, target: str, drop: Sequence[str], make: Callable[[], Any]
) -> tuple[Any, float]:
    """Return the same of scikit-learn's pipeline."""
    y, x = table[target].astype(str).to_numpy(), table.drop(columns=[target, *drop])
    numbers = [name for name in x if x[name].dtype.kind in "if"]
    texts = [name for name in x if name not in numbers]
    x = x.assign(**{name: x[name].astype(object).where(x[name].notna(), np.nan) for name in texts})
    fold, accuracies, seconds = divided(y, FOLDS), [], []
    for test in range(FOLDS):
        columns = ColumnTransformer(
            [
                ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numbers),
                (
                    "texts",
                    make_pipeline(
                        SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")
                    ),
                    texts,
                ),
            ],
            sparse_threshold=0,
        )
        x_train = columns.fit_transform(x[fold != test]).astype(np.float32)
        start, model = time.perf_counter(), make()
        model.fit(x_train, y[fold != test])
        seconds.append(time.perf_counter() - start)
        accuracies.append(model.score(columns.transform(x[fold == test]).astype(np.float32), y[fold == test]))
    return np.array(accuracies), float(np.mean(seconds))


def main(tables: Sequence[str]) -> None:
    """Compare both on tables, each `<file>:<target>` or `<file>:<target>:<columns to drop>`."""
    warnings.simplefilter("ignore")  # 50 epochs don't converge, says scikit-learn
    rows = ["| table | model | Lockstep | scikit-learn | a fit: Lockstep | scikit-learn |", "|" + "---|" * 6]
    for given in tables:
        path, target, dropped = f"{given}::".split(":")[:3]
        table, drop = pd.read_csv(path), [name for name in dropped.split(",") if name]
        batch_size = 32 if len(table) < 2000 else 200
        compared = {
            "mlp": (
                ("model.hidden_dims=[100]", "model.dropout=0"),
                lambda size=batch_size: MLPClassifier(
                    (100,), batch_size=size, max_iter=EPOCHS, random_state=0
                ),
            ),
            "logreg": (
                ("model=logreg", "optim.lr=0.03", "optim.schedule=cosine"),
                lambda: LogisticRegression(max_iter=1000),
            ),
        }
        for name, (settings, make) in compared.items():
            pair = (ours(path, target, drop, batch_size, *settings), theirs(table, target, drop, make))
            scores = [f"{found.mean():.4f} ± {found.std(ddof=1):.4f}" for found, _ in pair]
            fits = [f"{seconds:.2f} s" for _, seconds in pair]
            rows.append(f"| {path}, {len(table):,} rows | {name} | {' | '.join([*scores, *fits])} |")
    print("\n".join(rows))


if __name__ == "__main__":
    main(sys.argv[1:])
