"""The fixture `world`: import it, and the tests of a module run once in each world."""

from collections.abc import Iterator

import pytest

import fanline
from tests.support.client_worlds.worlds import WORLDS, AsyncioWorld, PlainWorld, client_class


@pytest.fixture(params=WORLDS, autouse=True)
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """`fanline.Client` is that of each world in turn; yields its name."""
    if request.param == "trio":
        yield "trio"
        return
    world = AsyncioWorld() if request.param == "asyncio" else PlainWorld()
    monkeypatch.setattr(fanline, "Client", client_class(world))
    yield world.name
    world.close()
