"""A real PostgreSQL, of Debian's package, on loopback."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path

USER = "nobody"
"""Who runs it where the tests are root's, as whom it refuses to run."""

PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)

MISSING = (
    "PostgreSQL is not installed (Debian: apt install postgresql)"
    if PROGRAMS is None
    else "psycopg is not installed (pip install 'psycopg[binary]')"
    if find_spec("psycopg") is None
    else ""
)
"""Why there is none; empty where there is one."""


class Postgres:
    """A PostgreSQL server with a database of its own.

    Attributes:
        uri: the database.
    """

    def __init__(self):
        self._folder = Path(tempfile.mkdtemp(prefix="postgres-"))  # not below pytest's, which is root's alone
        self._as = {}
        if os.getuid() == 0:
            user = pwd.getpwnam(USER)
            os.chown(self._folder, user.pw_uid, user.pw_gid)
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"postgresql+psycopg://lockstep@127.0.0.1:{self.port}/postgres"
        self._run(
            "initdb", "-D", "data", "-U", "lockstep", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"
        )

    def start(self):
        listens = f"-p {self.port} -k {self._folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._run("pg_ctl", "-D", "data", "-l", "log", "-w", "-o", listens, "start")

    def stop(self):
        """End it at once: its connections are cut, what was not committed is lost."""
        self._run("pg_ctl", "-D", "data", "-w", "-m", "immediate", "stop")

    def remove(self):
        self.stop()
        shutil.rmtree(self._folder)

    def _run(self, program, *arguments):
        command = [PROGRAMS / program, *arguments]  # a server keeps the file that it is given
        subprocess.run(command, cwd=self._folder, stdout=subprocess.DEVNULL, check=True, **self._as)
