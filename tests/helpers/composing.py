"""Command lines as they are composed."""

import pytest
from helpers.clone import REPOSITORY

from lockstep.config.compose import compose
from lockstep.config.errors import Refused

CONF = REPOSITORY / "conf"


def configs_of(arguments, multirun=False, config_dir=None):
    return [job.config for job in compose(CONF, arguments, multirun, config_dir=config_dir).requests]


def refusal(*arguments, multirun=False):
    with pytest.raises(Refused) as caught:
        compose(CONF, arguments, multirun)
    return list(caught.value.problems)
