"""Real MLflow servers on loopback."""

import os
import signal
import socket
import subprocess
import sys
import time

from helpers import forked


class Server:
    """A real MLflow server on loopback, with all that it holds below `root`.

    Attributes:
        uri: where it serves.
        store: the SQLite store behind it; by default its own.
        artifacts: the folder of the artifacts that it keeps.
    """

    def __init__(self, root, store=None):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.root, self.uri = root, f"http://127.0.0.1:{self.port}"
        self.store = store or f"sqlite:///{root}/server.db"
        self.artifacts = root / "server-artifacts"
        self.process = None

    def start(self):
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        stores = ["--backend-store-uri", self.store]
        stores += ["--artifacts-destination", str(self.artifacts), "--workers", "1"]
        with open(self.root / "server.log", "a") as log:
            self.process = subprocess.Popen(
                [*command, *stores], stdout=log, stderr=log, start_new_session=True
            )
        self._wait()

    def _wait(self):
        for _ in range(1200):
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        raise AssertionError("the server does not answer")

    def stop(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class QuickServer(Server):
    """The same application in a process that is forked, not started: ready in a second or two."""

    def start(self):
        self.process = forked.Process(serve, self.port, self.store, str(self.artifacts))
        self._wait()

    def stop(self):
        self.process.kill()
        self.process.join()


def serve(port, store, artifacts):
    """Serve MLflow's application, as `mlflow server` would with these options."""
    from mlflow.server import app
    from mlflow.server.constants import (
        ARTIFACT_ROOT_ENV_VAR,
        ARTIFACTS_DESTINATION_ENV_VAR,
        BACKEND_STORE_URI_ENV_VAR,
        SERVE_ARTIFACTS_ENV_VAR,
    )
    from werkzeug.serving import run_simple

    os.environ |= {
        BACKEND_STORE_URI_ENV_VAR: store,
        ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
        ARTIFACTS_DESTINATION_ENV_VAR: artifacts,
        SERVE_ARTIFACTS_ENV_VAR: "true",
    }
    for descriptor in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    run_simple("127.0.0.1", port, app, threaded=True)
