"""The real nats-server as the oracle: it says what the parser, the replies and the handshake expect of it."""

import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from fanline.protocol.nats.commands import publish, subscribe
from fanline.protocol.nats.options import NatsOptions
from fanline.protocol.nats.parser import NatsError, header_of
from fanline.protocol.nats.replies import Complaint, ComplaintKind
from tests.support.nats.blocking import BlockingClient
from tests.support.nats.operator import Operator
from tests.support.nats.server import NatsServer, running_nats
from tests.support.seeds import new_seed

pytestmark = pytest.mark.process

BLANKS = b" \t\r\n"
USER = "authorization {{ users: [ {{ user: u, password: p, permissions: {{ subscribe: {{ deny: [{}] }} }} }} ] }}"


@asynccontextmanager
async def connected(config: str = "", *, jetstream: bool = False) -> AsyncIterator[tuple[NatsServer, BlockingClient]]:
    """A nats-server set up so, and a client of it."""
    with trio.fail_after(20):
        async with running_nats(config=config, jetstream=jetstream) as server:
            with BlockingClient(NatsOptions((server.url,), user="u", password="p")) as client:
                yield server, client


# --- messages -----------------------------------------------------------------------------------------------------


def random_message(chance: random.Random) -> tuple[bytes, bytes, dict[str, str], bytes]:
    """Subject, reply, headers and payload; a subject may have any byte that does not separate."""
    allowed = bytes(set(range(256)) - set(BLANKS) - set(b".*>"))
    subject, reply = (bytes(chance.choices(allowed, k=chance.randint(1, 30))) for _ in range(2))
    headers = {f"Key-{number}": "v" * chance.randint(0, 99) for number in range(chance.choice((0, 0, 1, 5)))}
    payload = chance.randbytes(chance.choice((0, 1, 100, 5000, 300_000)))
    return subject, chance.choice((b"", reply)), headers, chance.choice((payload, b"\r\nMSG a 1 5\r\n"))


def command(subject: bytes, reply: bytes, headers: dict[str, str], payload: bytes) -> bytes:
    """PUB or HPUB, with a subject that commands.publish need not be able to write."""
    made = publish("SUBJECT", payload, headers, reply="REPLY" if reply else "")
    return made.replace(b"SUBJECT", subject, 1).replace(b"REPLY", reply, 1)


async def test_random_messages_come_back_from_the_server_as_they_were_sent() -> None:
    chance = random.Random(new_seed())
    sent = [random_message(chance) for _ in range(150)]
    async with connected() as (_, client):
        client.hear(">")
        for subject, reply, headers, payload in sent:
            client.connection.send(command(b"x." + subject, reply, headers, payload))
        client.flush()
    assert len(client.heard) == len(sent)
    for message, (subject, reply, headers, payload) in zip(client.heard, sent, strict=True):
        assert message.subject == "x." + subject.decode("utf-8", "replace")
        assert message.reply == reply.decode("utf-8", "replace")
        assert message.payload == payload
        assert {name: header_of(message.headers, name) for name in headers} == headers


async def test_the_server_says_the_position_of_a_stored_message_whatever_headers_its_publisher_made_up() -> None:
    stream = {"name": "TEST", "subjects": ["in.*"], "republish": {"src": "in.*", "dest": "out.{{wildcard(1)}}"}}
    async with connected(jetstream=True) as (_, client):
        assert b"error" not in client.request("$JS.API.STREAM.CREATE.TEST", msgspec.json.encode(stream))
        client.hear("out.*")
        client.request("in.a", b"first")
        made_up = {"Nats-Sequence": "99", "Nats-Last-Sequence": "98", "Nats-Subject": "in.b"}
        client.connection.send(publish("in.a", b"second", made_up))
        client.wait(lambda: len(client.heard) == 2)
    names = ("Nats-Sequence", "Nats-Last-Sequence", "Nats-Subject")
    assert [header_of(client.heard[1].headers, name) for name in names] == ["2", "1", "in.a"]


async def test_a_request_without_a_listener_is_answered_with_status_503() -> None:
    async with connected() as (_, client):
        client.hear("inbox")
        client.connection.send(publish("nobody", b"", reply="inbox"))
        client.wait(lambda: bool(client.heard))
    assert client.heard[0].status == 503


# --- INFO ---------------------------------------------------------------------------------------------------------


async def test_the_limit_of_the_account_is_known_as_soon_as_the_connection_is_open(tmp_path: Path) -> None:
    operator = Operator(max_payload=1000)
    creds = tmp_path / "user.creds"
    creds.write_text(operator.creds())
    with trio.fail_after(10):
        async with running_nats(config=operator.config(), jetstream=False) as server:
            with BlockingClient(NatsOptions((server.url,), creds=str(creds))) as client:
                client.flush()  # the INFO may also come in a read of its own
                assert client.connection.info.max_payload == 1000


# --- complaints ---------------------------------------------------------------------------------------------------

ONE_COMMAND = {
    "Invalid Subject": (subscribe("a..b", 7), ComplaintKind.COMMAND_REFUSED, ""),
    "ask for replies on": (publish("a", b"", reply="_R_.x.y"), ComplaintKind.PUBLISH_DENIED, "_R_.x.y"),
    "maximum subscriptions exceeded": (
        b"".join(subscribe(f"s.{number}", number) for number in range(8, 12)),
        ComplaintKind.COMMAND_REFUSED,
        "",
    ),
    "subscribe to denied.a": (subscribe("denied.a", 7), ComplaintKind.SUBSCRIBE_DENIED, "denied.a"),
    "subscribe to denied.b": (b"SUB denied.b queue 7\r\n", ComplaintKind.SUBSCRIBE_DENIED, "denied.b"),
    "subscribe to a.b.c.d.e": (subscribe("a.b.c.d.e", 7), ComplaintKind.SUBSCRIBE_DENIED, "a.b.c.d.e"),
}


@pytest.mark.parametrize("text", ONE_COMMAND)
async def test_a_command_that_the_server_refuses_leaves_the_connection_open(text: str) -> None:
    refused, kind, subject = ONE_COMMAND[text]
    config = "max_subscriptions: 4\nmax_sub_tokens: 4\n" + USER.format('"denied.>"')
    async with connected(config) as (_, client):
        client.hear("open")
        client.connection.send(refused + publish("open", b"1"))
        client.flush()
        assert [message.payload for message in client.heard] == [b"1"]
        client.flush()
    assert [(complaint.kind, complaint.subject) for complaint in client.complaints] == [(kind, subject)]
    assert text in client.complaints[0].text


async def test_a_permission_that_is_withdrawn_is_told_with_its_subject() -> None:
    async with connected(USER.format("")) as (server, client):
        client.hear("news.a")
        client.flush()
        server.reload(USER.format('"news.>"'))
        client.wait(lambda: bool(client.complaints))
        client.flush()
    assert client.complaints == [
        Complaint(ComplaintKind.SUBSCRIBE_DENIED, "NATS does not permit this user to subscribe to news.a", "news.a")
    ]


async def test_a_message_over_the_limit_ends_the_connection() -> None:
    async with connected("max_payload: 1000") as (_, client):
        assert client.connection.info.max_payload == 1000
        client.connection.send(publish("a", bytes(1001)))
        with pytest.raises(NatsError, match="Maximum Payload Violation"):
            client.flush()


async def test_a_client_that_does_not_answer_is_told_that_its_connection_is_stale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with connected("ping_interval: 50ms\nping_max: 1") as (_, client):
        monkeypatch.setattr(client.connection, "send", lambda _: None)
        with pytest.raises(NatsError, match="Stale Connection"):
            client.wait(lambda: False)


async def test_a_full_server_says_so_although_it_does_not_wait_for_our_hello() -> None:
    async with connected("max_connections: 1") as (server, _):
        for _ in range(10):  # its complaint comes together with INFO or right after it
            with pytest.raises(NatsError, match="maximum connections exceeded"):
                BlockingClient(NatsOptions((server.url,)))


async def test_a_login_that_expires_ends_the_connection_with_the_reason(tmp_path: Path) -> None:
    operator, creds = Operator(), tmp_path / "user.creds"
    creds.write_text(operator.creds(expires=time.time() + 2))
    with trio.fail_after(30):
        async with running_nats(config=operator.config(), jetstream=False) as server:
            with BlockingClient(NatsOptions((server.url,), creds=str(creds))) as client:
                with pytest.raises(NatsError, match="refused the login: User Authentication Expired"):
                    client.wait(lambda: False)
                assert client.complaints == []
