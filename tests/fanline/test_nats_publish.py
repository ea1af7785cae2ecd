"""The NATS publisher against a scripted server in memory."""

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from fanline._nats_publish import NatsPublisher
from protocol.envelope import Envelope
from protocol.nats_text import NatsAddress, NatsError

INFO = b'INFO {"version":"2.15.1","max_payload":100,"headers":true}\r\n'
ADDRESS = NatsAddress("x", 1, False, "", "", "s3cret")


async def _publisher(replies: bytes) -> tuple[NatsPublisher, trio.abc.Stream]:
    ours, theirs = memory_stream_pair()
    await theirs.send_all(replies)
    return NatsPublisher(ours, ADDRESS), theirs


async def _received(stream: trio.abc.Stream) -> bytes:
    with trio.fail_after(1):
        return bytes(await stream.receive_some(65536))


async def test_a_message_goes_out_as_an_envelope_with_its_id_for_de_duplication() -> None:
    publisher, server = await _publisher(INFO + b"PONG\r\n")
    await publisher.start()
    assert b'"auth_token":"s3cret"' in await _received(server)
    await publisher.publish(Envelope(channel="task:42", data={"percent": 4}))
    assert await _received(server) == b'PUB fanline.pub.task.42 25\r\n{"v":1,"d":{"percent":4}}\r\n'
    await publisher.publish(Envelope(channel="task:42", id="a1", event="e", data=1))
    sent = await _received(server)
    assert sent.startswith(b"HPUB fanline.pub.task.42 ")
    assert b"Nats-Msg-Id: a1\r\n" in sent
    assert sent.endswith(b'{"v":1,"i":"a1","e":"e","d":1}\r\n')


async def test_flush_waits_for_the_pong_and_answers_the_servers_ping() -> None:
    publisher, server = await _publisher(INFO + b"PONG\r\n+OK\r\nPING\r\nPONG\r\n")
    await publisher.start()
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
async def test_a_refusal_is_told_in_the_servers_words(replies: bytes, said: str) -> None:
    publisher, _ = await _publisher(replies)
    with trio.fail_after(1), pytest.raises(NatsError, match=said):
        await publisher.start()


async def test_a_server_that_goes_away_is_told_and_its_last_words_count_most() -> None:
    publisher, server = await _publisher(INFO + b"PONG\r\n")
    await publisher.start()
    await server.send_all(b"-ERR 'Stale Connection'\r\n")
    await server.aclose()
    with trio.fail_after(1), pytest.raises(NatsError, match="Stale Connection"):
        await publisher.publish(Envelope(channel="task:42", data=1))
    with trio.fail_after(1), pytest.raises(NatsError, match="closed the connection"):
        await publisher.flush()


async def test_a_message_over_the_servers_limit_is_not_sent() -> None:
    publisher, server = await _publisher(INFO + b"PONG\r\nPONG\r\n")
    await publisher.start()
    await _received(server)
    with pytest.raises(NatsError, match="takes 100"):
        await publisher.publish(Envelope(channel="task:42", data="x" * 100))
    await publisher.flush()
    assert await _received(server) == b"PING\r\n"


async def test_a_silent_server_is_given_up(autojump_clock: MockClock) -> None:
    publisher, _ = await _publisher(b"")
    with pytest.raises(NatsError, match="did not answer"):
        await publisher.start()
