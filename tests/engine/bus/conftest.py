"""Fixtures of the contract tests: every one of them runs on the bus in memory and on the bus on NATS."""

from collections.abc import AsyncIterator

import pytest
import trio

from tests.engine.bus.cluster import CLUSTERS, Cluster, OpenBus


@pytest.fixture(params=CLUSTERS)
async def cluster(request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
    with trio.fail_after(20):
        async with request.param() as opened:
            yield opened


@pytest.fixture
def open_bus(cluster: Cluster) -> OpenBus:
    return cluster.open_bus
