"""Streams are created and updated as the settings say, on a real nats-server, by whichever worker comes first."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio

from fanline.engine.bus.errors import BusError, StorageFullError
from fanline.engine.bus.nats.bus import NatsBus
from fanline.engine.bus.nats.jetstream import bucket_config, stream_config
from fanline.engine.bus.nats.opening import open_nats_bus
from fanline.engine.bus.stored import StreamState
from fanline.engine.namespaces import DEFAULTS, Namespace, Namespaces, Storage
from fanline.protocol.nats.names import SIGNING_KEY, Bucket
from fanline.protocol.nats.options import NatsOptions
from tests.engine.bus.cluster import Inbox, join
from tests.support.faults.fault_proxy import running_proxy
from tests.support.nats.client import NatsClient, connect_nats
from tests.support.nats.cluster import running_cluster
from tests.support.nats.server import NatsServer, running_nats

STREAM = "FANLINE_mine"


@asynccontextmanager
async def worker(server: NatsServer, port: int | None = None, **namespace: Any) -> AsyncIterator[NatsBus]:
    """A worker's bus; `port`: that of a proxy to the server."""
    namespaces = Namespaces({"mine": Namespace(durable=True, **namespace)})
    async with open_nats_bus(NatsOptions((f"nats://127.0.0.1:{port or server.port}",)), "test", namespaces) as bus:
        yield bus


async def config_of(server: NatsServer) -> dict[str, Any]:
    """The configuration of the namespace's stream, as an independent client sees it."""
    async with connect_nats(server.url) as operator:
        return dict((await operator.api("STREAM.INFO", stream=STREAM))["config"])


async def until_recreated(bus: NatsBus, channel: str) -> StreamState:
    while True:
        try:
            return await bus.stream_state(channel)
        except BusError:
            await trio.sleep(0.01)


async def until_key_is_stored(bus: NatsBus) -> None:
    while True:
        with suppress(BusError):  # its bucket is recreated after the streams of channels
            if await bus.kv_get(Bucket.KEYS, SIGNING_KEY) is not None:
                return
        await trio.sleep(0.01)


async def refusal(server: NatsServer, **namespace: Any) -> str:
    with pytest.raises(BusError) as caught:
        async with worker(server, **namespace):
            pass
    return str(caught.value)


async def test_a_stream_is_created_as_the_settings_say_and_stays_the_same_for_the_next_worker() -> None:
    with trio.fail_after(30):
        async with running_nats() as server:
            async with worker(server, history=7, max_age=60) as bus:
                wanted = stream_config("mine", Namespace(durable=True, history=7, max_age=60))
                found = await config_of(server)
                assert {key: found[key] for key in wanted} == wanted
                assert (found["max_msgs_per_subject"], found["max_age"]) == (7, 60e9)
                assert found["duplicate_window"] == 60e9  # JetStream would cut a longer one silently
                await bus.store("mine:a", b"x", "1")
                epoch = (await bus.stream_state("mine:a")).epoch
            async with worker(server, history=7, max_age=60) as bus:
                state = await bus.stream_state("mine:a")
                assert (state.epoch, state.last) == (epoch, 1)


def test_the_notices_of_a_user_are_bounded_in_number_and_in_age() -> None:  # S1-51, S1-52
    config = stream_config("user", DEFAULTS["user"])
    assert (config["max_msgs_per_subject"], config["max_age"]) == (1000, 7 * 86_400 * 10**9)


async def test_several_workers_that_start_at_once_create_each_stream_once() -> None:
    with trio.fail_after(30):
        async with running_nats() as server:
            epochs: list[str] = []

            async def start() -> None:
                async with worker(server) as bus:
                    epochs.append((await bus.stream_state("mine:a")).epoch.name)

            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(start)
            assert len(epochs) == 5
            assert len(set(epochs)) == 1


async def test_a_changed_length_or_age_is_changed_in_the_stream_and_the_messages_stay() -> None:
    with trio.fail_after(30):
        async with running_nats() as server:
            async with worker(server, history=10) as bus:
                for number in range(6):
                    await bus.store("mine:a", b"x", str(number))
                epoch = (await bus.stream_state("mine:a")).epoch
            async with worker(server, history=4, max_age=600) as bus:
                config = await config_of(server)
                assert (config["max_msgs_per_subject"], config["max_age"]) == (4, 600e9)
                assert [stored.position.offset for stored in (await bus.read("mine:a", 1)).messages] == [3, 4, 5, 6]
                assert (await bus.stream_state("mine:a")).epoch == epoch


async def test_a_change_that_jetstream_refuses_is_one_sentence_that_says_what_to_do() -> None:
    with trio.fail_after(30):
        async with running_nats() as server:
            async with worker(server):
                pass
            text = await refusal(server, storage=Storage.MEMORY)
    assert text.startswith(
        f"NATS at 127.0.0.1:{server.port} cannot be used: the stream of namespace mine cannot be brought in line"
    )
    assert "can not change storage type" in text
    assert text.endswith(
        "Change the settings back, or delete the stream FANLINE_mine with its messages and start again"
    )
    assert "\n" not in text


async def test_a_server_without_jetstream_is_refused_in_one_sentence() -> None:
    with trio.fail_after(30):
        async with running_nats(jetstream=False) as server:
            text = await refusal(server)
    assert text.startswith(f"NATS at 127.0.0.1:{server.port} cannot be used: JetStream is not enabled there")
    assert "\n" not in text


async def test_streams_in_memory_are_recreated_after_a_restart_and_the_loss_is_reported() -> None:
    with trio.fail_after(30):
        async with running_nats() as server, worker(server, storage=Storage.MEMORY) as bus:
            losses: list[float] = []
            inbox = Inbox(bus, losses.append)
            await join(bus, "mine:a")
            await bus.store("mine:a", b"before", "1")
            await inbox.wait(1)
            epoch = (await bus.stream_state("mine:a")).epoch
            server.kill()
            while bus.connected:
                await trio.sleep(0.01)
            with pytest.raises(BusError):
                await bus.store("mine:a", b"meanwhile", "2")
            await server.start()
            while not losses:
                await trio.sleep(0.01)
            state = await until_recreated(bus, "mine:a")
            assert state.epoch != epoch
            assert state.last == 0
            assert (await bus.store("mine:a", b"after", "1")).offset == 1
            assert await inbox.wait(2) == [("mine:a", b"before"), ("mine:a", b"after")]
            assert len(losses) == 1


async def test_a_stream_that_an_operator_changed_during_an_outage_does_not_hold_back_its_report(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # The loss was once reported only when the streams were as the settings say, which here they never are.
    with trio.fail_after(30):
        async with running_nats() as server, running_proxy(("127.0.0.1", server.port), seed=0) as proxy:
            async with worker(server, proxy.port) as bus, connect_nats(server.url) as operator:
                reported = trio.Event()
                bus.attach(lambda *_: None, lambda _: reported.set())
                proxy.refuse("127.0.0.1", math.inf)
                proxy.cut_all()
                await operator.api("STREAM.DELETE", stream=STREAM)
                changed = stream_config("mine", Namespace(durable=True, storage=Storage.MEMORY))
                await operator.api("STREAM.CREATE", changed, STREAM)
                assert not reported.is_set()
                proxy.refuse("127.0.0.1", 0)
                await reported.wait()
                while "cannot be brought in line with the settings" not in caplog.text:
                    await trio.sleep(0.01)


async def test_a_bucket_created_without_expiry_per_key_is_updated_and_its_keys_stay() -> None:
    with trio.fail_after(30):
        async with running_nats() as server:
            async with connect_nats(server.url) as operator:
                old = bucket_config(Bucket.TASKS, 0, 1, -1)
                del old["allow_msg_ttl"]
                await operator.api("STREAM.CREATE", old, old["name"])
                await operator.ask("$KV.fanline_tasks.task.old", b"1")
            async with worker(server) as bus:
                await bus.kv_put(Bucket.TASKS, "task.new", b"2", 60)
                found = await bus.kv_entries(Bucket.TASKS)
        assert {key: entry.value for key, entry in found.items()} == {"task.old": b"1", "task.new": b"2"}


# --- whether a stream takes messages ------------------------------------------------------------------------------


async def change(operator: NatsClient, **config: Any) -> None:
    found = (await operator.api("STREAM.INFO", stream=STREAM))["config"]
    await operator.api("STREAM.UPDATE", found | config, stream=STREAM)


async def test_a_stream_that_an_operator_made_drop_nothing_is_full_at_its_limit() -> None:
    with trio.fail_after(30):
        async with running_nats() as server, worker(server) as bus, connect_nats(server.url) as operator:
            await change(operator, discard="new", max_msgs=2)
            await bus.store("mine:a", b"x")
            await bus.check_writable("mine")
            await bus.store("mine:a", b"x")
            with pytest.raises(BusError, match="maximum messages exceeded"):
                await bus.store("mine:a", b"x")
            with pytest.raises(StorageFullError, match="FANLINE_mine has reached its max_msgs"):
                await bus.check_writable("mine")


@pytest.mark.parametrize(
    ("config", "said"),
    [({"sealed": True}, "sealed"), ({"subjects": ["elsewhere"], "republish": None}, "not there")],
)
async def test_a_stream_that_is_there_and_takes_no_messages_is_found_out(config: dict[str, Any], said: str) -> None:
    with trio.fail_after(30):
        async with running_nats() as server, worker(server) as bus, connect_nats(server.url) as operator:
            await bus.check_writable("mine")
            await change(operator, **config)
            assert (await bus.stream_state("mine:a")).last == 0
            with pytest.raises(BusError, match=said):
                await bus.check_writable("mine")


async def test_a_stream_without_a_leader_is_found_out() -> None:
    # The one server that is left still says what the stream holds.
    with trio.fail_after(60):
        async with running_cluster() as cluster, worker(cluster.servers[0], replicas=3) as bus:
            await bus.check_writable("mine")
            for server in cluster.servers[1:]:
                server.kill()
            writable = True
            while writable:  # until the server notices that the others are gone; then it refuses, or says nothing
                writable = False
                with trio.move_on_after(1), suppress(BusError):
                    await bus.check_writable("mine")
                    writable = True


async def test_a_store_that_has_lost_the_key_of_signatures_gets_the_one_that_workers_still_have() -> None:
    with trio.fail_after(30):
        async with running_nats() as server, worker(server) as bus:
            server.kill()
            while bus.connected:
                await trio.sleep(0.01)
            server.lose_store()
            await server.start()
            await until_recreated(bus, "mine:a")
            await until_key_is_stored(bus)
            async with worker(server) as later:
                await bus.store("mine:a", b"1", "1", signed=True)
                await later.store("mine:a", b"2", "2", signed=True)
                for reader in (bus, later):
                    assert [stored.position.signed for stored in (await reader.read("mine:a", 1)).messages] == [
                        True
                    ] * 2
