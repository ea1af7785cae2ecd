"""The publisher of `fanline pub` on a real socket, against a scripted server."""

import pytest
import trio

from fanline.nats.publish import NatsPublisher, open_nats_publisher
from fanline.protocol.envelope import Envelope
from fanline.protocol.nats.options import NatsOptions
from fanline.protocol.nats.parser import NatsError
from tests.fanline.nats.scripted import INFO, ScriptedServer, listening

pytestmark = pytest.mark.process


async def answer_flushes(server: ScriptedServer, sent: list[bytes]) -> None:
    while True:
        sent.append(await server.read_until(b"PING\r\n"))
        await server.send(b"PONG\r\n")


async def test_a_message_is_sent_as_an_envelope_and_its_deduplication_id_in_a_header() -> None:
    sent = list[bytes]()

    async def serve(server: ScriptedServer) -> None:
        sent.append(await server.log_in())
        await answer_flushes(server, sent)

    async with listening(serve) as url, open_nats_publisher(NatsOptions((url,))) as publisher:
        publisher.publish(Envelope(channel="task:42", data={"percent": 4}))
        publisher.publish(Envelope(channel="task:42", id="a1", event="e", data=1, deduplication_id="b" * 16))
        with pytest.raises(NatsError, match="accepts at most 100"):
            publisher.publish(Envelope(channel="task:42", data="x" * 100))
        with pytest.raises(NatsError, match="accepts at most 100"):  # with its headers
            publisher.publish(Envelope(channel="task:42", data="x", deduplication_id="i" * 50))
        await publisher.flush()
        assert b'"auth_token":"s3cret"' in sent[0]
        assert b'PUB fanline.pub.task.42 25\r\n{"v":1,"d":{"percent":4}}\r\nHPUB fanline.pub.task.42 ' in sent[1]
        assert b"Nats-Msg-Id: /task:42/bbbbbbbbbbbbbbbb\r\n" in sent[1]
        assert sent[1].endswith(b'{"v":1,"i":"a1","e":"e","d":1}\r\nPING\r\n')


@pytest.mark.parametrize(
    ("replies", "said"),
    [
        (INFO + b"-ERR 'maximum connections exceeded'\r\n", "refused: maximum connections exceeded"),
        (b"HTTP/1.1 400 Bad Request\r\n", "HTTP/1.1 400 Bad Request"),
        (b"INFO nonsense\r\n", "INFO cannot be read"),
        (b"", "closed the connection"),
    ],
)
async def test_a_refusal_is_reported_in_the_servers_words(replies: bytes, said: str) -> None:
    async def serve(server: ScriptedServer) -> None:
        await server.send(replies)
        if replies:
            await trio.sleep_forever()

    async with listening(serve) as url:
        with pytest.raises(NatsError, match=said):
            async with open_nats_publisher(NatsOptions((url,))):
                pass


async def test_a_lost_server_is_an_error_and_what_it_said_last_is_the_reason() -> None:
    async def serve(server: ScriptedServer) -> None:
        await server.log_in()
        await server.read_until(b"PING\r\n")
        await server.send(b"-ERR 'Stale Connection'\r\n")

    async with listening(serve) as url:
        with pytest.raises(NatsError, match="Stale Connection"):
            async with open_nats_publisher(NatsOptions((url,))) as publisher:
                publisher.publish(Envelope(channel="task:42", data=1))
                with pytest.raises(NatsError, match="Stale Connection"):
                    await publisher.flush()
                publisher.publish(Envelope(channel="task:42", data=1))


async def test_a_server_that_says_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanline.nats.dial.ANSWER_SECONDS", 0.05)

    async def serve(server: ScriptedServer) -> None:
        await trio.sleep_forever()

    async with listening(serve) as url:
        with pytest.raises(NatsError, match="no answer"):
            async with open_nats_publisher(NatsOptions((url,))):
                pass


async def test_the_servers_pings_are_answered_while_nothing_is_published() -> None:
    answered = trio.Event()

    async def serve(server: ScriptedServer) -> None:
        await server.log_in()
        await server.read_until(b"SUB ")
        await server.send(b"PING\r\n")
        await server.read_until(b"PONG\r\n")
        answered.set()
        await answer_flushes(server, [])

    async with listening(serve) as url, open_nats_publisher(NatsOptions((url,))):
        await answered.wait()


async def test_the_next_server_is_tried_when_one_cannot_be_reached() -> None:
    async def serve(server: ScriptedServer) -> None:
        await server.log_in()
        await answer_flushes(server, [])

    async with listening(serve) as url, open_nats_publisher(NatsOptions(("nats://127.0.0.1:1", url))):
        pass


async def test_whatever_waits_when_the_publisher_is_closed_gets_an_error() -> None:
    async def serve(server: ScriptedServer) -> None:
        await server.log_in()
        await server.read_until(b"PING\r\n")
        publisher.close()
        await trio.sleep_forever()

    async with listening(serve) as url:
        publisher = NatsPublisher(NatsOptions((url,)))
        await publisher.wait_open()
        for _ in range(2):
            with pytest.raises(NatsError, match="closed"):
                await publisher.flush()
        with pytest.raises(NatsError, match="closed"):
            publisher.publish(Envelope(channel="task:42", data=1))
