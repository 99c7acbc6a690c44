"""MLflow's variables in the environment of a command, before MLflow is imported."""

import os


def settle() -> None:
    """Take variables that are set to nothing for not set; turn MLflow's telemetry off unless it is asked for.

    Telemetry tells MLflow's makers which of its functions are used. Its threads take a command's time, and
    may write a traceback as the process ends.
    """
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_DISABLE_TELEMETRY"):
        if not os.environ.get(name):
            os.environ.pop(name, None)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
