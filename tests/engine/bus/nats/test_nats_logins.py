"""The bus logs in to NATS in every way there is, says why if it cannot, and moves on in a cluster."""

from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.nats.bus import NatsBus
from fanline.engine.bus.nats.client import client as client_module
from fanline.engine.bus.nats.opening import open_nats_bus
from fanline.engine.namespaces import Namespace, Namespaces
from fanline.protocol.nats.addresses import parse_url
from fanline.protocol.nats.options import NatsOptions
from tests.engine.bus.cluster import Inbox, join
from tests.support.nats.cluster import running_cluster
from tests.support.nats.logins import LOGINS, OpenLogin, running_with_denials
from tests.support.nats.server import running_nats

pytestmark = pytest.mark.process

REPLICATED = Namespaces({"task": Namespace(durable=True, replicas=3)})


@pytest.mark.parametrize("open_login", LOGINS.values(), ids=LOGINS)
async def test_a_right_login_carries_stored_messages(open_login: OpenLogin, tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with open_login(tmp_path) as login, open_nats_bus(login.options, "test") as bus:
            inbox = Inbox(bus)
            await join(bus, "task:1")
            assert (await bus.store("task:1", b"hello", "i1")).offset == 1
            assert await inbox.wait(1) == [("task:1", b"hello")]
            assert inbox.positions[0] is not None


@pytest.mark.parametrize("open_login", LOGINS.values(), ids=LOGINS)
async def test_a_wrong_login_is_one_sentence_that_names_the_server(
    open_login: OpenLogin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "START_SECONDS", 0.2)
    with trio.fail_after(20):
        async with open_login(tmp_path) as login:
            for reason, options in login.wrong.items():
                with pytest.raises(BusError, match=reason) as caught:
                    async with open_nats_bus(options, "test"):
                        pass
                assert f"cannot connect to NATS at {parse_url(options.servers[0])}" in str(caught.value)
                assert "\n" not in str(caught.value)
                assert "guessed" not in str(caught.value)


# --- permissions --------------------------------------------------------------------------------------------------


async def test_a_denied_channel_is_refused_with_its_subject_and_all_others_go_on() -> None:
    with trio.fail_after(20):
        async with (
            running_with_denials(publish="fanline.pub.*.mute", subscribe="fanline.*.*.deaf") as login,
            open_nats_bus(login.options, "test") as bus,
        ):
            inbox = Inbox(bus)
            for channel, subject in (("chat:deaf", "fanline.pub.chat.deaf"), ("task:deaf", "fanline.out.task.deaf")):
                with pytest.raises(BusError, match=f"not permit this user to subscribe to {subject}"):
                    await join(bus, channel)
            with pytest.raises(BusError, match=r"not permit this user to publish to fanline.pub.chat.mute"):
                await bus.publish("chat:mute", b"x")
            with pytest.raises(BusError, match=r"not permit this user to publish to fanline.pub.task.mute"):
                await bus.store("task:mute", b"x", "i1")
            await join(bus, "chat:open")
            await bus.publish("chat:open", b"1")
            assert await inbox.wait(1) == [("chat:open", b"1")]
            assert bus.connected


@pytest.mark.parametrize(
    ("publish", "subscribe"), [("fanline.pub.chat.>", "nothing"), ("nothing", "fanline.pub.chat.>")]
)
async def test_a_denied_publish_is_no_denied_join_of_the_same_channel_nor_the_other_way_round(
    publish: str, subscribe: str
) -> None:
    # Both are on one subject, and share a PING if they are asked for at the same time.
    refusals = list[str]()

    async def attempt(request: Awaitable[None]) -> None:
        try:
            await request
        except BusError as error:
            refusals.append(str(error))

    with trio.fail_after(20):
        async with running_with_denials(publish, subscribe) as login, open_nats_bus(login.options, "test") as bus:
            Inbox(bus)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(attempt, join(bus, "chat:a"))
                nursery.start_soon(attempt, bus.publish("chat:a", b"x"))
    verb = "publish" if subscribe == "nothing" else "subscribe"
    assert refusals == [f"NATS does not permit this user to {verb} to fanline.pub.chat.a"]


@pytest.mark.parametrize(
    ("publish", "subscribe", "subject"),
    [
        ("$JS.API.>", "nothing", r"publish to \$JS.API.STREAM.INFO.\w+"),
        ("nothing", "_INBOX.>", r"subscribe to _INBOX\.\w+"),
    ],
)
async def test_a_denial_at_the_start_is_one_sentence_with_server_and_subject(
    publish: str, subscribe: str, subject: str
) -> None:
    with trio.fail_after(20):
        async with running_with_denials(publish, subscribe) as login:
            expected = rf"NATS at {login.options.describe()} cannot be used: .*not permit this user to {subject}"
            with pytest.raises(BusError, match=expected) as caught:
                async with open_nats_bus(login.options, "test"):
                    pass
    assert "\n" not in str(caught.value)


async def test_a_subscription_that_is_one_too_many_is_refused_and_the_connection_goes_on() -> None:
    with trio.fail_after(20):
        async with running_nats(config="max_subscriptions: 20") as server:
            async with open_nats_bus(NatsOptions((server.url,)), "test") as bus:
                inbox = Inbox(bus)
                await join(bus, "chat:first")
                with pytest.raises(BusError, match="maximum subscriptions exceeded"):
                    for number in range(20):
                        await join(bus, f"chat:{number}")
                await bus.publish("chat:first", b"1")
                assert await inbox.wait(1) == [("chat:first", b"1")]


# --- a cluster ----------------------------------------------------------------------------------------------------


async def test_in_a_cluster_the_bus_moves_on_from_a_server_that_is_killed_or_about_to_stop() -> None:
    stored: list[bytes] = []
    with trio.fail_after(60):
        async with (
            running_cluster() as cluster,
            open_nats_bus(NatsOptions(cluster.urls[:1]), "test", REPLICATED) as bus,  # it learns of the others
        ):
            losses: list[float] = []
            inbox = Inbox(bus, losses.append)
            await join(bus, "task:1")
            await store_until_heard(bus, inbox, stored)
            cluster.servers[0].kill()
            while len(losses) < 1:
                await trio.sleep(0.01)
            await store_until_heard(bus, inbox, stored)
            await cluster.servers[0].start()
            left = cluster.server_on(port_of(bus))
            left.retire()
            while len(losses) < 2:
                await trio.sleep(0.01)
            assert port_of(bus) != left.port
            await store_until_heard(bus, inbox, stored)
            read: list[bytes] = []
            while len(read) < len(stored):  # any replica may answer, and it may be a moment behind
                read = [message.payload for message in (await bus.read("task:1", 1)).messages]
    assert read == stored
    assert left is not cluster.servers[0]


async def store_until_heard(bus: NatsBus, inbox: Inbox, stored: list[bytes]) -> None:
    """Store messages until one is heard: the stream's leader learns of our subscription a moment after our server."""
    heard = len(inbox.messages)
    while len(inbox.messages) == heard:
        stored.append(b"%d" % len(stored))
        await until_stored(bus, stored[-1], f"i{len(stored)}")
        with trio.move_on_after(0.2):
            await inbox.wait(heard + 1)


def port_of(bus: NatsBus) -> int | None:
    """The port of the server to which the bus is connected; None without a connection."""
    wire = bus.client._wire
    return None if wire is None else wire.socket.getpeername()[1]


async def until_stored(bus: NatsBus, payload: bytes, message_id: str) -> int:
    """The offset; without a leader JetStream does not answer, and another try with the same id is stored once."""
    while True:
        with suppress(BusError):
            return (await bus.store("task:1", payload, message_id)).offset
        await trio.sleep(0.05)
