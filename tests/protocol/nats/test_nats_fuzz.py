"""A seeded fuzzer: whatever a server sends, the parser, the handshake and the connection raise NatsError or nothing.

FANLINE_TEST_SEED=N replays the seed that is printed; HYPOTHESIS_EXAMPLES=N makes the search longer.
"""

import itertools
import os
import random
from collections.abc import Callable, Iterator

import pytest

from fanline.protocol.nats.commands import Login
from fanline.protocol.nats.connection import NatsConnection, NatsSubscriptions
from fanline.protocol.nats.handshake import Handshake, HandshakeState
from fanline.protocol.nats.parser import NatsError, NatsMessage, Parser, header_of, status_of
from fanline.protocol.nats.replies import ServerInfo
from tests.protocol.nats.test_parser import GARBAGE, STREAM
from tests.support.seeds import new_seed

ROUNDS = 50 * int(os.environ.get("HYPOTHESIS_EXAMPLES", "100"))
SEEDS = (
    *STREAM,
    *(data for data in GARBAGE if len(data) < 100),
    b'INFO {"server_id":"N","version":"2.15.1","headers":true,"max_payload":1048576,"nonce":"a"} \r\n',
    b'INFO {"tls_required":true,"connect_urls":["10.0.0.1:4222","[::1]:4222"],"ldm":true} \r\n',
    b"-ERR 'Permissions Violation for Publish to \"a.b\"'\r\n",
    b'-ERR \'Permissions Violation for Subscription to "a.*" using queue "q"\'\r\n',
    b"-ERR 'Stale Connection'\r\n",
)
WORDS = (
    b"MSG ",
    b"HMSG ",
    b"INFO ",
    b"-ERR ",
    b"\r\n",
    b"\r",
    b"\n",
    b" ",
    b"'",
    b'"',
    b"{",
    b"\xff",
    b"\x00",
    b"-1",
    b"9" * 5000,
)


def mutated(chance: random.Random) -> bytes:
    """A few replies of a server in a row, damaged in a few places."""
    data = bytearray(b"".join(chance.choices(SEEDS, k=chance.randint(1, 4))))
    for _ in range(chance.randint(0, 4)):
        start = chance.randrange(len(data) + 1)
        end = chance.choice((start, start + 1, start + chance.randint(0, 20)))
        data[start:end] = chance.choice((b"", chance.randbytes(1), chance.choice(WORDS), bytes(data[start:end]) * 2))
    return bytes(data)


def pieces(data: bytes, chance: random.Random) -> Iterator[bytes]:
    """The data as several reads; none of them is empty, as no read is."""
    places = sorted({0, len(data), *(chance.randrange(len(data) + 1) for _ in range(chance.randint(0, 3)))})
    return (data[start:end] for start, end in itertools.pairwise(places))


def parse(reads: Iterator[bytes]) -> None:
    parser = Parser()
    for data in reads:
        for item in parser.feed(data):
            if isinstance(item, NatsMessage):
                assert isinstance(status_of(item.headers), int | None)
                assert isinstance(header_of(item.headers, "Bar"), str | None)


def shake_hands(reads: Iterator[bytes]) -> None:
    handshake = Handshake(Login(), name="fuzz", tls=False)
    for data in reads:
        handshake.receive(data)
        if handshake.state is HandshakeState.HELLO:
            assert handshake.hello().startswith(b"CONNECT {")


def serve(reads: Iterator[bytes]) -> None:
    subscriptions, taken = NatsSubscriptions(), list[NatsMessage]()
    sid = subscriptions.add("FOO", taken.append)
    connection = NatsConnection(
        ServerInfo(), Parser(), subscriptions, on_work=lambda: None, on_complaint=lambda complaint: None
    )
    for data in reads:
        connection.receive(data)
    assert all(message.sid == sid for message in taken)


@pytest.mark.parametrize("target", [parse, shake_hands, serve])
def test_damaged_streams_raise_nats_errors_alone(target: Callable[[Iterator[bytes]], None]) -> None:
    chance = random.Random(new_seed())
    refused = list[str]()
    for _ in range(ROUNDS):
        data = mutated(chance)
        try:
            target(pieces(data, chance))
        except NatsError as error:
            refused.append(str(error))
        except Exception as error:
            error.add_note(f"sent: {data!r}")
            raise
    assert all(refused)
    assert 0 < len(refused) < ROUNDS  # the fuzzer reaches both outcomes
