"""`fanline.Client` against a real server: workers, NATS and sockets."""

import os
import signal

import pytest
import trio

import fanline
from fanline._nats_publish import open_nats_publisher
from protocol.envelope import Envelope
from protocol.nats_text import parse_url
from tests.serve import Serve, running_serve


async def test_a_client_whose_worker_is_killed_comes_back_by_itself_and_goes_on_receiving() -> None:
    with trio.fail_after(60):
        async with running_serve() as serve, fanline.Client(serve.url) as client:
            async with client.subscribe("news:all") as messages:
                await client.publish("news:all", "before")
                assert (await anext(messages)).data == "before"
                for pid in serve.worker_pids():
                    os.kill(pid, signal.SIGKILL)
                await _publish_until_heard(client, messages)


async def _publish_until_heard(client: fanline.Client, messages: fanline.Subscription) -> None:
    """A publish right at the loss may fail, with an unknown outcome; then the client is asked again."""
    while True:
        try:
            await client.publish("news:all", "after")
        except fanline.ConnectionLost as error:
            if error.final:
                raise
            continue
        assert (await anext(messages)).data == "after"
        return


async def test_both_codecs_see_the_same_data_whoever_published_it() -> None:
    data = {"text": "grüezi", "list": [1, 2.5, None, True], "big": 2**53 + 1, "nested": {"a": {"b": []}}}
    with trio.fail_after(60):
        async with (
            running_serve() as serve,
            fanline.Client(serve.url) as json,
            fanline.Client(serve.url, codec="cbor") as cbor,
        ):
            async with json.subscribe("news:all") as in_json, cbor.subscribe("news:all") as in_cbor:
                first = await json.publish("news:all", data, event="from_json")
                second = await cbor.publish("news:all", data, event="from_cbor", id="mine")
                assert second == "mine"
                await _publish_over_nats(serve, data)
                pairs = [(await anext(in_json), await anext(in_cbor)) for _ in range(3)]
    for one, other in pairs:
        assert one == other
        assert one.data == data
        assert one.channel == "news:all"
        assert one.time is not None
    assert sorted(str(one.event) for one, _ in pairs) == ["from_cbor", "from_json", "from_nats"]
    assert {first, "mine"} <= {one.id for one, _ in pairs}


async def _publish_over_nats(serve: Serve, data: object) -> None:
    address = parse_url(serve.nats_url)._replace(token=serve.nats_token)
    async with open_nats_publisher(address) as publisher:
        await publisher.publish(Envelope(channel="news:all", event="from_nats", data=data))


async def test_byte_strings_survive_between_cbor_clients() -> None:
    with trio.fail_after(60):
        async with running_serve(workers=1) as serve, fanline.Client(serve.url, codec="cbor") as client:
            async with client.subscribe("news:all") as messages:
                await client.publish("news:all", {"blob": b"\x00\xff"})
                assert (await anext(messages)).data == {"blob": b"\x00\xff"}


async def test_a_refused_command_raises_the_servers_code_and_the_connection_goes_on() -> None:
    with trio.fail_after(60):
        async with running_serve(workers=1) as serve, fanline.Client(serve.url) as client:
            with pytest.raises(fanline.ServerError) as caught:
                await client.publish("no channel", 1)
            assert caught.value.code == "bad_channel"
            with pytest.raises(fanline.ServerError) as caught:
                async with client.subscribe("news:all", "news:*"):
                    pass
            assert caught.value.code == "bad_channel"
            assert await client.ping() < 10
            async with client.subscribe("news:all", "news:other") as messages:
                await client.publish("news:other", 1)
                assert (await anext(messages)).channel == "news:other"


async def test_a_server_that_stops_for_good_is_waited_for_up_to_the_callers_deadline() -> None:
    with trio.fail_after(60):
        async with running_serve(workers=1) as serve, fanline.Client(serve.url) as client:
            await client.ping()
            await serve.child.stop(10)
            with trio.move_on_after(0.5) as scope:
                await client.publish("news:all", 1)
            assert scope.cancelled_caught
