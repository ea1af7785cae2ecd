"""What reads bytes from outside: each with good inputs, and the errors with which it may refuse others."""

import json
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fanline.engine.bus.nats.signatures import Signatures
from fanline.protocol.auth.claims import TokenError
from fanline.protocol.auth.public_keys import read_key_set
from fanline.protocol.auth.request_token import token_of
from fanline.protocol.auth.rights import GrantError, parse_grant
from fanline.protocol.auth.tokens import TokenRules, UnusableKeyError, secret_key, sign, verify
from fanline.protocol.channels import check_channel
from fanline.protocol.dialects import PLAIN
from fanline.protocol.envelope import decode_cbor, decode_json, encode_cbor, encode_json, from_producer
from fanline.protocol.errors import FrameError, HttpError, MessageError
from fanline.protocol.nats.parser import NatsError, NatsMessage, Parser
from fanline.protocol.websocket.addresses import Networks, client_address
from fanline.protocol.websocket.frames import FrameReader, Opcode, encode_masked_frame
from fanline.protocol.websocket.handshake import HeadReader, check_upgrade, choose_subprotocol
from fanline.protocol.websocket.origins import HostRules
from tests.support.paths import ROOT
from tests.support.raw_client import MASK, upgrade_request

SECRET = "a secret that is long enough for SHA-256"
_LIMIT = 64 * 1024
_PROXIES = Networks(["10.0.0.0/8"])


class Target(NamedTuple):
    """One reader of bytes."""

    good: Sequence[bytes]
    run: Callable[[bytes, random.Random], object]
    refusals: tuple[type[Exception], ...]


def pieces(data: bytes, chance: random.Random) -> list[bytes]:
    """The data as a socket might deliver it."""
    cuts = sorted(chance.randint(0, len(data)) for _ in range(chance.choice((0, 0, 1, 3, 9))))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def _handshake(data: bytes, chance: random.Random) -> None:
    reader = HeadReader()
    for piece in pieces(data, chance):
        request = reader.feed(piece)
        if request is not None:
            HostRules(["app.example"], ["https://app.example"]).check(request, "127.0.0.1")
            check_upgrade(request)
            choose_subprotocol(request, ("fanline.v1.json", "fanline.v1.cbor"))
            token_of(request, "session")
            client_address("10.0.0.1", request.headers, _PROXIES)
            return


def _frames(data: bytes, chance: random.Random) -> None:
    reader = FrameReader(_LIMIT, deflated=chance.random() < 0.5)
    for piece in pieces(data, chance):
        for message in reader.feed(piece):
            assert len(message.payload) <= _LIMIT


def _json(data: bytes, chance: random.Random) -> None:
    """What is accepted can be written in both codecs, and reads as itself."""
    envelope = decode_json(data)
    assert decode_json(encode_json(envelope)).value == envelope.value
    encode_cbor(envelope)


def _cbor(data: bytes, chance: random.Random) -> None:
    envelope = decode_cbor(data)
    decode_cbor(encode_cbor(envelope))


def _plain(data: bytes, chance: random.Random) -> None:
    PLAIN.decode(data)


def _producer(data: bytes, chance: random.Random) -> None:
    envelope = from_producer(data)
    encode_json(envelope)
    encode_cbor(envelope)
    PLAIN.encode(envelope)


def _channel(data: bytes, chance: random.Random) -> None:
    check_channel(data.decode("utf-8", "surrogateescape"))


def _grant(data: bytes, chance: random.Random) -> None:
    parse_grant(data.decode("utf-8", "surrogateescape"))


def _token(data: bytes, chance: random.Random) -> None:
    """Only a token that was not changed passes."""
    text = data.decode("latin-1")
    verify(text, [secret_key(SECRET)], TokenRules(), 1e9)
    assert data in TARGETS["token"].good, text


def _key_set(data: bytes, chance: random.Random) -> None:
    for key in read_key_set(data):
        assert not key.algorithms & {"none", "HS256", "HS384", "HS512"}


def _nats(data: bytes, chance: random.Random) -> None:
    parser = Parser()
    for piece in pieces(data, chance):
        for found in parser.feed(piece):
            assert found is not None


def _signature(data: bytes, chance: random.Random) -> None:
    position = b"Nats-Sequence: 7\r\nNats-Time-Stamp: 2026-01-01T00:00:00Z\r\n\r\n"
    message = NatsMessage(1, "fanline.out.task.1", "", b"{}", b"NATS/1.0\r\n" + data + b"\r\n" + position)
    assert not Signatures(b"key").position_of("task:1", message).signed


_ENVELOPES = json.loads((ROOT / "tests" / "vectors" / "envelopes.json").read_text())["envelopes"]
_TOKENS = [
    sign(claims, SECRET.encode()).encode()
    for claims in ({"exp": 2e9, "sub": "anna"}, {"exp": 2e9, "channels": {"task:*": ["sub"]}})
]
TARGETS: dict[str, Target] = {
    "handshake": Target(
        [
            upgrade_request(),
            upgrade_request(
                "/ws?token=a.b.c", Cookie="other=x", Origin="https://app.example", X_Forwarded_For="1.2.3.4, 10.0.0.2"
            ),
        ],
        _handshake,
        (HttpError,),
    ),
    "frames": Target(
        [
            encode_masked_frame(Opcode.TEXT, b"hello", MASK),
            encode_masked_frame(Opcode.BINARY, b"x" * 300, MASK),
            encode_masked_frame(Opcode.PING, b"", MASK),
            b"\x01\x81\x00\x00\x00\x00a\x80\x81\x00\x00\x00\x00b",
            b"\xc1\x87\x00\x00\x00\x00\xf2H\xcd\xc9\xc9\x07\x00",
        ],
        _frames,
        (FrameError,),
    ),
    "envelope, JSON": Target([entry["json"].encode() for entry in _ENVELOPES], _json, (MessageError,)),
    "envelope, CBOR": Target([bytes.fromhex(entry["cbor"]) for entry in _ENVELOPES], _cbor, (MessageError,)),
    "plain dialect": Target(
        [
            b'{"type":"subscribe","channel":"task:1"}',
            b'{"type":"task_input","task_id":1,"input":[1]}',
            b'{"type":"ping","timestamp":1}',
            b'{"type":"new_message","session_id":"1","data":{}}',
        ],
        _plain,
        (MessageError,),
    ),
    "producers": Target(
        [b'{"v":1,"e":"task_progress","d":{"percent":50}}', b'"text"', b"\xa1ad\x01", b"[1,2.5,null]"],
        _producer,
        (MessageError,),
    ),
    "channel": Target([b"task:42", b"user:anna@example.com", b"doc:a.b.c"], _channel, (MessageError,)),
    "grant": Target([b"task:*:sub+call", b"user:{user}:sub", b"*:pub"], _grant, (GrantError,)),
    "token": Target(_TOKENS, _token, (TokenError,)),
    "key set": Target(
        [
            b'{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","kid":"a"}]}',
            b'{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB","use":"sig"}]}',
        ],
        _key_set,
        (UnusableKeyError,),
    ),
    "NATS": Target(
        [
            b"MSG fanline.pub.task.1 1 5\r\nhello\r\n",
            b"HMSG a 2 r 12 17\r\nNATS/1.0\r\n\r\nhello\r\n",
            b'INFO {"version":"2.11"}\r\nPING\r\n',
            b"-ERR 'x'\r\n+OK\r\n",
        ],
        _nats,
        (NatsError,),
    ),
    "signature": Target(
        [
            b"Fanline-Signature: 1767225600000 " + b"ab" * 32 + b"\r\nNats-Msg-Id: e/task:1/x",
            b"Nats-Msg-Id: e/task:1/x\r\nFanline-Signature: 1767225600000 00",
        ],
        _signature,
        (),
    ),
}
"""Name -> reader."""
