"""What the garbage collector sees."""

import gc

import pytest

from lockstep.execution.collector import uncollected


@pytest.fixture(autouse=True)
def thawed():
    yield
    gc.unfreeze()


def test_what_is_made_meanwhile_is_out_of_the_collectors_sight_and_what_comes_later_is_not():
    frozen = gc.get_freeze_count()
    with uncollected():
        assert not gc.isenabled()
        made = [[] for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= frozen + len(made)
    later = []
    assert any(seen is later for seen in gc.get_objects())
    assert not any(seen is made for seen in gc.get_objects())


def test_the_collector_is_back_after_an_import_that_failed():
    with pytest.raises(ImportError), uncollected():
        raise ImportError
    assert gc.isenabled()
