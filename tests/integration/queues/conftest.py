"""A server and a Redis for the tests of a queue."""

from collections.abc import Iterator

import pytest

from tests.integration.queues.redis_server import running_redis
from tests.support.servers.serve import Serve, shared_serve


@pytest.fixture(scope="module")
def _server() -> Iterator[Serve]:
    with shared_serve() as serve:
        yield serve


@pytest.fixture
def serve(_server: Serve, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """It is the one that this process reports to, too."""
    monkeypatch.setenv("FANLINE_NATS", _server.producer_url)
    return _server


@pytest.fixture
def redis() -> Iterator[str]:
    """The URL of an empty one."""
    with running_redis() as url:
        yield url
