"""Who comes and goes is told to those who watch, one by one or counted, and to nobody else."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import trio

from fanline.engine.access.access import Access
from fanline.engine.access.keys.api_keys import ApiKeys
from fanline.engine.access.settings import AccessSettings, AuthMode
from fanline.engine.management.feed import LINES
from fanline.protocol.auth.api_keys import ApiRight
from fanline.protocol.errors import CloseReason
from tests.engine.access.clients import token, token_access
from tests.engine.running import RunningEngine, running_engine
from tests.support.raw_client import RawClient, connect_raw, upgrade_request

MONITOR = "/ws/admin/monitor"


@asynccontextmanager
async def watching(engine: RunningEngine, path: str = MONITOR) -> AsyncIterator[RawClient]:
    """A client on the monitor, which hears what happens."""
    async with connect_raw(engine.host, engine.port) as client:
        await client.upgrade(None, path)
        assert (await client.json())["type"] == "connection_established"
        while True:
            async with connect_raw(engine.host, engine.port) as other:
                await other.upgrade("fanline.v1.json")
            with trio.move_on_after(1):
                await heard(client, "disconnect")
                break
        yield client


async def heard(client: RawClient, kind: str) -> dict[str, Any]:
    """The data of the next message of a type."""
    while (message := await client.json())["type"] != kind:
        pass
    data: dict[str, Any] = message["data"]
    return data


async def test_a_client_is_told_when_it_comes_is_known_and_goes() -> None:  # S4-03
    with trio.fail_after(30):
        async with running_engine() as engine, watching(engine) as monitor:
            async with connect_raw(engine.host, engine.port) as client:
                await client.upgrade(None, "/ws", User_Agent="browser")
                connection = (await client.json())["connection_id"]
                await client.say({"type": "connect", "user_id": "anna", "username": "Anna"})
                told = await heard(monitor, "connect")
                assert (told["connection_id"], told["route"], told["client_address"], told["user_agent"]) == (
                    connection,
                    "/ws",
                    "127.0.0.1",
                    "browser",
                )
                while (message := await monitor.json())["type"] != "user_status_update":
                    pass
                assert (message["user_id"], message["status"], message["username"]) == ("anna", "online", "Anna")
                assert message["data"]["connection_id"] == connection
            assert (await heard(monitor, "user_status_update"))["status"] == "offline"
            assert (await heard(monitor, "disconnect"))["code"] == 1006  # S3-35


async def test_a_storm_is_counted_and_not_told_line_by_line() -> None:
    count = 4 * LINES
    with trio.fail_after(60):
        async with running_engine() as engine, watching(engine) as monitor, AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(connect_raw(engine.host, engine.port)) for _ in range(count)]
            for client in clients:  # all at once
                await client.send(upgrade_request())
            lines = counted = 0
            while lines + counted < count:
                message = await monitor.json()
                lines += message["type"] == "connect"
                if message["type"] == "connections_update":
                    counted += message["data"]["opened"]
            assert lines + counted == count
            assert counted


async def test_nobody_but_those_who_manage_the_server_may_watch() -> None:  # S4-49
    with trio.fail_after(30):
        async with running_engine(access=token_access(AccessSettings(everyone=("*:sub",)))) as engine:
            _, publisher, _ = await ApiKeys(engine.bus).create("shop", [ApiRight.PUBLISH], None)
            for shown, status in [
                (None, 401),
                ("rubbish", 401),
                ("fl_0123456789ab_" + "x" * 43, 401),
                (publisher, 403),
                (token(sub="anna"), 403),
                (token(sub="anna", roles=["editor"], channels={"*": ["sub", "pub", "call"]}), 403),
            ]:
                async with connect_raw(engine.host, engine.port) as client:
                    query = "" if shown is None else f"?token={shown}"
                    await client.send(upgrade_request(f"{MONITOR}{query}", None))
                    assert (await client.read_http())[0] == status, shown
            async with connect_raw(engine.host, engine.port) as client:  # nor by another route
                await client.upgrade("fanline.v1.json", f"/ws?token={token(sub='anna')}")
                await client.json()
                refused = await client.ask({"t": "sub", "c": "monitor:all", "i": "1"})
                assert refused["d"]["code"] == "permission_denied"
                refused = await client.ask({"t": "sub", "c": "monitor:*", "i": "2"})
                assert refused["d"]["code"] == "permission_denied"


async def test_an_admin_watches_by_v1_as_well_and_no_client_publishes_there() -> None:
    with trio.fail_after(30):
        async with running_engine(access=token_access()) as engine:
            async with connect_raw(engine.host, engine.port) as client:
                await client.upgrade("fanline.v1.json", f"{MONITOR}?token={token('root', roles=['admin'])}")
                welcome = await client.json()
                assert welcome["t"] == "welcome"
                said = [await client.json() for _ in range(2)]
                assert {each["c"] for each in said} == {"monitor:all", "system:all"}
                refused = await client.ask({"t": "pub", "c": "monitor:all", "i": "1", "e": "stats_update"})
                assert refused["d"]["code"] == "permission_denied"
                answer = await client.ask({"t": "call", "c": "monitor:all", "i": "2", "e": "stats"})
                assert "no control process" in answer["d"]["message"]
                published = await come_until_told(engine, client)
                assert (published["c"], published["e"]) == ("monitor:all", "connect")


async def come_until_told(engine: RunningEngine, client: RawClient) -> dict[str, Any]:
    """The first message that a v1 client on the monitor gets, which takes somebody who comes."""
    while True:
        async with connect_raw(engine.host, engine.port) as other:
            await other.upgrade()
        with trio.move_on_after(1):
            while (message := await client.json())["t"] != "pub":
                pass
            return message


async def test_the_holder_of_a_key_watches_until_the_key_is_revoked() -> None:
    with trio.fail_after(30):
        async with running_engine(access=token_access()) as engine:
            keys = ApiKeys(engine.bus)
            key_id, key, _ = await keys.create("ops", [ApiRight.READ], None)
            async with connect_raw(engine.host, engine.port) as client:
                await client.upgrade(None, MONITOR, X_API_Key=key)
                assert (await client.json())["type"] == "connection_established"
                await keys.revoke(key_id)
                assert (await client.closed())[0] == CloseReason.POLICY.code


async def test_an_open_server_is_managed_by_those_with_a_key_alone() -> None:
    with trio.fail_after(30):
        async with running_engine(access=Access(AuthMode.OPEN)) as engine:
            async with connect_raw(engine.host, engine.port) as client:
                await client.send(upgrade_request(MONITOR, None))
                assert (await client.read_http())[0] == 401
            _, key, _ = await ApiKeys(engine.bus).create("ops", [ApiRight.ADMIN], None)
            async with connect_raw(engine.host, engine.port) as client:
                await client.upgrade(None, f"{MONITOR}?token={key}")
                assert (await client.json())["type"] == "connection_established"
