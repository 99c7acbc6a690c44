"""Versions of the numerics, as if a Lockstep of another version trained."""

import sys

from lockstep.config import identity

TODAY, BEFORE = identity.NUMERICS_VERSION, identity.EARLIER_VERSIONS[0]


def set_version(monkeypatch, version, earlier=()):
    """Let a version be that of today, and `earlier` ones count."""
    for module in [module for name, module in sys.modules.items() if name.startswith("lockstep.")]:
        for name, value in (("NUMERICS_VERSION", version), ("EARLIER_VERSIONS", earlier)):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)
