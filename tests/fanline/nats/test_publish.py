"""The NATS publisher against a scripted server in memory."""

from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from fanline.nats.connection import NatsClient
from fanline.nats.publish import NatsPublisher
from fanline.protocol.envelope import Envelope
from fanline.protocol.nats.client_protocol import NatsAddress, NatsError, NatsMessage, Reply, read_server

INFO = b'INFO {"version":"2.15.1","max_payload":100,"headers":true}\r\n'
ADDRESS = NatsAddress("x", 1, False, "", "", "s3cret")


async def _client(replies: bytes) -> tuple[NatsClient, trio.abc.Stream]:
    ours, theirs = memory_stream_pair()
    await theirs.send_all(replies)
    return NatsClient(ours, ADDRESS), theirs


async def _publisher(replies: bytes) -> tuple[NatsPublisher, trio.abc.Stream]:
    """A publisher whose login is on its way to the server."""
    client, theirs = await _client(replies)
    await client.start()
    return NatsPublisher(client), theirs


async def _received(stream: trio.abc.Stream) -> bytes:
    with trio.fail_after(1):
        return bytes(await stream.receive_some(65536))


async def test_a_message_is_sent_as_an_envelope_with_its_id_for_deduplication() -> None:
    publisher, server = await _publisher(INFO + b"PONG\r\n")
    assert b'"auth_token":"s3cret"' in await _received(server)
    await publisher.publish(Envelope(channel="task:42", data={"percent": 4}))
    assert await _received(server) == b'PUB fanline.pub.task.42 25\r\n{"v":1,"d":{"percent":4}}\r\n'
    await publisher.publish(Envelope(channel="task:42", id="a1", event="e", data=1))
    sent = await _received(server)
    assert sent.startswith(b"HPUB fanline.pub.task.42 ")
    assert b"Nats-Msg-Id: /task:42/a1\r\n" in sent
    assert sent.endswith(b'{"v":1,"i":"a1","e":"e","d":1}\r\n')


async def test_flush_waits_for_the_pong_and_answers_the_servers_ping() -> None:
    publisher, server = await _publisher(INFO + b"PONG\r\n+OK\r\nPING\r\nPONG\r\n")
    await _received(server)
    await publisher.flush()
    assert await _received(server) == b"PING\r\nPONG\r\n"


@pytest.mark.parametrize(
    ("replies", "said"),
    [
        (INFO + b"-ERR 'Authorization Violation'\r\n", "refused: Authorization Violation"),
        (b"HTTP/1.1 400 Bad Request\r\n", "not a NATS server"),
        (b"INFO nonsense\r\n", "INFO cannot be read"),
    ],
)
async def test_a_refusal_is_reported_in_the_servers_words(replies: bytes, said: str) -> None:
    client, _ = await _client(replies)
    with trio.fail_after(1), pytest.raises(NatsError, match=said):
        await client.start()


async def test_a_lost_server_is_an_error_and_what_it_said_last_is_the_reason() -> None:
    publisher, server = await _publisher(INFO + b"PONG\r\n")
    await server.send_all(b"-ERR 'Stale Connection'\r\n")
    await server.aclose()
    with trio.fail_after(1), pytest.raises(NatsError, match="Stale Connection"):
        await publisher.publish(Envelope(channel="task:42", data=1))
    with trio.fail_after(1), pytest.raises(NatsError, match="closed the connection"):
        await publisher.flush()


async def test_a_message_over_the_servers_limit_is_not_sent() -> None:
    publisher, server = await _publisher(INFO + b"PONG\r\nPONG\r\n")
    await _received(server)
    with pytest.raises(NatsError, match="accepts at most 100"):
        await publisher.publish(Envelope(channel="task:42", data="x" * 100))
    await publisher.flush()
    assert await _received(server) == b"PING\r\n"


async def test_a_silent_server_is_an_error(autojump_clock: MockClock) -> None:
    client, _ = await _client(b"")
    with pytest.raises(NatsError, match="did not answer"):
        await client.start()


def _message(payload: bytes) -> bytes:
    return b"MSG _INBOX.x 1 %d\r\n%s\r\n" % (len(payload), payload)


@pytest.mark.parametrize(("streams", "stored"), [(b'["FANLINE_task"]', True), (b"null", False), (b"[]", False)])
async def test_jetstream_says_whether_a_channel_is_stored(streams: bytes, stored: bool) -> None:  # a table's column
    publisher, server = await _publisher(INFO + b"PONG\r\n" + _message(b'{"total":1,"streams":%s}' % streams))
    await _received(server)
    with trio.fail_after(1):
        assert await publisher.is_stored("task:42") is stored
    subscribed, asked, body, _ = (await _received(server)).split(b"\r\n")
    assert subscribed.startswith(b"SUB _INBOX.")
    assert asked.split()[:2] == [b"PUB", b"$JS.API.STREAM.NAMES"]
    assert asked.split()[2] == subscribed.split()[1]
    assert body == b'{"subject":"fanline.pub.task.42"}'


async def test_flush_waits_until_everything_is_stored_whatever_comes_first() -> None:
    publisher, server = await _publisher(INFO + b"PONG\r\n")
    for number in range(2):
        await publisher.publish(Envelope(channel="task:42", data=number), stored=True)
    flushed = trio.Event()

    async def flush() -> None:
        await publisher.flush()
        flushed.set()

    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(flush)
            for answer in (_message(b'{"stream":"s","seq":1}'), b"PONG\r\n"):
                await server.send_all(answer)
                await trio.testing.wait_all_tasks_blocked()
                assert not flushed.is_set()
            await server.send_all(_message(b'{"stream":"s","seq":2,"duplicate":true}'))


async def test_a_message_that_cannot_be_stored_is_an_error_in_jetstreams_words() -> None:
    publisher, server = await _publisher(INFO + b"PONG\r\n")
    await publisher.publish(Envelope(channel="task:42", data=1), stored=True)
    await server.send_all(b"PONG\r\n" + _message(b'{"error":{"code":503,"description":"no space left"}}'))
    with trio.fail_after(1), pytest.raises(NatsError, match="no space left"):
        await publisher.flush()


async def test_silence_instead_of_an_acknowledgement_is_an_error(autojump_clock: MockClock) -> None:
    publisher, _ = await _publisher(INFO + b"PONG\r\nPONG\r\n")
    await publisher.publish(Envelope(channel="task:42", data=1), stored=True)
    with pytest.raises(NatsError, match="JetStream did not answer"):
        await publisher.flush()


def _cuts(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    return ((data[:at], data[at:]) for at in range(len(data) + 1))


def test_what_is_read_does_not_depend_on_how_the_bytes_are_cut() -> None:
    message, status = b"MSG in.x 1 6\r\n{\r\nx\r\n\r\n", b"HMSG in 2 out 16 18\r\nNATS/1.0 503\r\n\r\nhi\r\n"
    expected = [
        Reply("PING", ""),
        NatsMessage(1, "in.x", "", b"{\r\nx\r\n"),
        NatsMessage(2, "in", "out", b"hi", 503),
        Reply("+OK", ""),
    ]
    for first, second in _cuts(b"PING\r\n" + message + status + b"+OK\r\n"):
        items, rest = read_server(first)
        more, rest = read_server(rest + second)
        assert items + more == expected
        assert rest == b""


@pytest.mark.parametrize("line", [b"MSG in 1", b"MSG in one 3", b"HMSG in 1 3", b"MSG in 1 a b 3"])
def test_a_message_without_its_sizes_is_an_error(line: bytes) -> None:
    with pytest.raises(NatsError, match="sent b'"):
        read_server(line + b"\r\nabc\r\n")
