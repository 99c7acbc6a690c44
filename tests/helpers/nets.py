"""Configs of runs whose networks are in tests/fixtures/nets.py."""

from helpers.clone import REPOSITORY

from lockstep.config.model_config import CNNConfig, ModuleConfig
from lockstep.training import network_code

NETS = REPOSITORY / "tests" / "fixtures" / "nets.py"

CNN = CNNConfig(name="cnn", channels=(3, 5), kernel=3, hidden_dims=(12,), batch_norm=True, dropout=0.25)


def module(name, **given):
    """The config of one of these networks, whose code this process now knows."""
    code = network_code.read(f"{NETS}:{name}")
    return ModuleConfig(name="module", path=f"{NETS}:{name}", source=code.source, **code.settings(given))
