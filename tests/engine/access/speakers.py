"""Clients that ask for the same thing in each dialect, and what they hear, told alike."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from fanline.protocol.envelope import Envelope, MessageType, decode_cbor, decode_json, encode_cbor, encode_json
from fanline.protocol.messages.answers import error_of
from fanline.protocol.websocket.frames import Opcode
from tests.support.raw_client import RawClient

RIGHTS = ("sub", "pub", "presence", "history", "call", "answer", "cancel")
"""In an order in which one task can see them all: it ends with the last."""


class Heard(NamedTuple):
    """One message of the server."""

    kind: str
    """"ok", "err", "pong", "other"."""
    code: str | None = None
    """Of an error in v1; the plain dialect has none."""
    message: str | None = None
    channel: str | None = None
    fields: Mapping[str, Any] = {}


def _v1(payload: bytes, decode: Callable[[bytes], Envelope]) -> Heard:
    envelope = decode(payload)
    kind = envelope.type if envelope.type in ("ok", "err", "pong") else "other"
    fields = {"type": envelope.type, "event": envelope.event, "data": envelope.value}
    if kind == "err":
        said = error_of(envelope)
        return Heard(kind, said.code, said.message, envelope.channel, fields)
    return Heard(kind, None, None, envelope.channel, fields)


_V1: Mapping[str, tuple[MessageType, str | None]] = {
    "sub": (MessageType.SUB, None),
    "pub": (MessageType.PUB, "note"),
    "presence": (MessageType.PRESENCE, None),
    "history": (MessageType.HISTORY, None),
    "call": (MessageType.CALL, "tune"),
    "answer": (MessageType.CALL, "approve"),
    "cancel": (MessageType.CALL, "cancel"),
}


def v1_command(right: str, channel: str) -> Envelope:
    """The command that needs a right."""
    kind, event = _V1[right]
    data = {"word": 1} if right == "pub" else None
    return Envelope(kind, channel=channel, event=event, id=right, data=data)


class Dialect(NamedTuple):
    """One of the three, as clients speak it."""

    name: str
    subprotocol: str | None
    opcode: Opcode
    command: Callable[[str, str], bytes | None]
    """(right, channel) -> the command that needs the right; None if the dialect has none."""
    token: Callable[[str], bytes] | None
    """The command that shows another token, if the dialect has one."""
    ping: bytes
    read: Callable[[bytes], Heard]


def _encoded(encode: Callable[[Envelope], bytes]) -> Callable[[str, str], bytes]:
    return lambda right, channel: encode(v1_command(right, channel))


def _auth(encode: Callable[[Envelope], bytes]) -> Callable[[str], bytes]:
    return lambda token: encode(Envelope(MessageType.AUTH, id="auth", data={"token": token}))


def _plain_command(right: str, channel: str) -> bytes | None:
    namespace, _, name = channel.partition(":")
    commands: dict[str, dict[str, Any]] = {
        "sub": {"type": "subscribe", "channel": channel},
        "pub": {"type": "new_message", "channel": channel, "data": {"word": 1}},
        "history": {"type": "history", "channel": channel},
    }
    if namespace == "task":  # these commands name the task alone
        commands |= {
            "answer": {"type": "task_input", "task_id": name, "input": True},
            "cancel": {"type": "task_cancel", "task_id": name},
        }
    return msgspec.json.encode(commands[right]) if right in commands else None


def _plain_heard(payload: bytes) -> Heard:
    said = msgspec.json.decode(payload)
    match said["type"]:
        case "error":
            return Heard("err", None, said["message"], None, said)
        case "pong":
            return Heard("pong", fields=said)
        case "subscription_result" | "message_status_update" | "history" | "input_result" | "cancel_result":
            refused = said.get("success") is False or said.get("subscribed") is False
            return Heard("err" if refused else "ok", None, said.get("message"), said.get("channel"), said)
    return Heard("other", fields=said)


_PING = Envelope(MessageType.PING, id="ping")
DIALECTS = {
    dialect.name: dialect
    for dialect in (
        Dialect(
            "json",
            "fanline.v1.json",
            Opcode.TEXT,
            _encoded(encode_json),
            _auth(encode_json),
            encode_json(_PING),
            lambda payload: _v1(payload, decode_json),
        ),
        Dialect(
            "cbor",
            "fanline.v1.cbor",
            Opcode.BINARY,
            _encoded(encode_cbor),
            _auth(encode_cbor),
            encode_cbor(_PING),
            lambda payload: _v1(payload, decode_cbor),
        ),
        Dialect("plain", None, Opcode.TEXT, _plain_command, None, b'{"type":"ping","timestamp":1}', _plain_heard),
    )
}


class Speaker:
    """One connected client."""

    def __init__(self, client: RawClient, dialect: Dialect) -> None:
        self.client = client
        self._dialect = dialect

    async def hear(self) -> Heard:
        """The next message."""
        message = await self.client.message()
        assert message.opcode is self._dialect.opcode, message
        return self._dialect.read(message.payload)

    async def ask(self, command: bytes) -> Heard:
        """The answer to a command; messages that come before it are passed over."""
        await self.client.say(command, self._dialect.opcode)
        while (heard := await self.hear()).kind == "other":
            pass
        return heard

    async def settled(self) -> list[Heard]:
        """What has come, up to the answer to a ping: the connection lives. That another member has got a message is
        told at any time, and is passed over.
        """
        await self.client.say(self._dialect.ping, self._dialect.opcode)
        seen: list[Heard] = []
        while (heard := await self.hear()).kind != "pong":
            if heard.fields.get("status") != "delivered":
                seen.append(heard)
        return seen
