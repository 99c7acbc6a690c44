"""A network of several "machines" on this one, whose links can be cut. It needs root."""

import os
import shutil
import subprocess

PREFIX = "10.77.0"


def can_be_made():
    """Whether this process may make networks."""
    return os.geteuid() == 0 and shutil.which("ip") is not None and _ip("link", "show").returncode == 0


def _ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True)


class Network:
    """A bridge, and a network namespace for each machine."""

    def __init__(self):
        self._names = []
        self._bridge = f"ls{os.getpid() % 10**6}"
        self._do("link", "add", self._bridge, "type", "bridge")
        self._do("link", "set", self._bridge, "up")

    def add(self, name):
        """Make a machine; return its address, and the words before a command that is to run there."""
        self._names.append(name)
        space, outer, n = self._space(name), self._outer(name), len(self._names)
        self._do("netns", "add", space)
        self._do("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", space)
        self._do("link", "set", outer, "master", self._bridge, "up")
        inside = ("-n", space)
        self._do(*inside, "addr", "add", f"{PREFIX}.{n}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            self._do(*inside, "link", "set", link, "up")
        return f"{PREFIX}.{n}", ("ip", "netns", "exec", space)

    def cut(self, name):
        """Cut a machine's link: what is sent is lost, and nobody is told."""
        self._do("link", "set", self._outer(name), "nomaster")

    def mend(self, name):
        """Put a link back."""
        self._do("link", "set", self._outer(name), "master", self._bridge)

    def remove(self):
        for name in self._names:
            _ip("netns", "delete", self._space(name))
            _ip("link", "delete", self._outer(name))
        _ip("link", "delete", self._bridge)

    def _space(self, name):
        return f"{self._bridge}-{name}"

    def _outer(self, name):
        return f"{self._bridge}{name}"[:15]

    def _do(self, *words):
        done = _ip(*words)
        assert done.returncode == 0, (words, done.stderr)
