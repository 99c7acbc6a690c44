"""A real MLflow server on loopback."""

import os
import signal
import socket
import subprocess
import sys
import time


class Server:
    """A real MLflow server on loopback, with all that it holds below `root`.

    Attributes:
        uri: where it serves.
        store: the SQLite store behind it.
        artifacts: the folder of the artifacts that it keeps.
    """

    def __init__(self, root):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.root, self.uri = root, f"http://127.0.0.1:{self.port}"
        self.store = f"sqlite:///{root}/server.db"
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
        for _ in range(600):
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        raise AssertionError((self.root / "server.log").read_text())

    def stop(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
