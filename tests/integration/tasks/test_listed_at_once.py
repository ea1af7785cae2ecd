"""A task whose start was acknowledged is listed, whichever way and worker is asked. Real processes."""

import msgspec
import trio

import fanline
from tests.support.nats.client import NatsClient, connect_nats
from tests.support.programs.commands import run_fanline
from tests.support.servers.serve import Serve, running_serve

STARTED = msgspec.json.encode({"v": 1, "e": "task_started", "d": {}})


async def _start(nats: NatsClient, task: str) -> None:
    assert "seq" in await nats.ask(f"fanline.pub.task.{task}", STARTED)  # it is stored


async def _table(serve: Serve) -> set[str]:
    """What a viewer who comes sees first."""
    async with fanline.Client(serve.url) as client, client.subscribe("tasks:running", last=1) as messages:
        return {row["id"] for row in (await anext(messages)).data["tasks"]}


async def test_a_task_is_in_the_table_of_whoever_comes_after_its_start() -> None:
    with trio.fail_after(120):
        async with running_serve(workers=3) as serve, connect_nats(serve.producer_url) as nats:
            started = set[str]()
            for number in range(20):
                await _start(nats, name := f"t{number}")
                started.add(name)
                assert await _table(serve) == started
            await _start(nats, "last")
            listed = await run_fanline(serve, "tasks", "--json")
            assert "last" in {row["id"] for row in msgspec.json.decode(listed.stdout)["tasks"]}
