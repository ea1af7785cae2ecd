import pytest

from tests.engine.tasks.monitor.world import World


@pytest.fixture
def world() -> World:
    return World()
