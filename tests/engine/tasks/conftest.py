import pytest

from tests.engine.tasks.world import World


@pytest.fixture
def world() -> World:
    return World()
