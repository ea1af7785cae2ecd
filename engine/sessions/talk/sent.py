"""The receipt `delivered`, where the sender of a message is: it learns that another member has been sent it."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple
from weakref import ReferenceType, WeakKeyDictionary, ref

import msgspec

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.interface import Bus, Respond
from fanline.engine.clock import unix_ms
from fanline.engine.sessions.connection_ids import PROCESS
from fanline.engine.sessions.session import Session
from fanline.engine.sessions.talk.receipts import status_fields
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.nats.names import system_subject

MOST_EXPECTED = 4096
"""Messages of a worker's clients that may never be received; the oldest are forgotten first."""
MOST_OF_ONE = 100
"""Those of one client, so that one who speaks to empty rooms costs only its own receipts."""


def taken_subject(process: str) -> str:
    """Where the worker that is this process is told of its clients' messages that were taken."""
    return system_subject("taken", process)


class _Sent(NamedTuple):
    """Nothing in it is large: it may be kept for long after its client has gone, and its message need not be."""

    session: ReferenceType[Session]
    channel: str | None
    fields: bytes
    """Those of the receipt, as JSON: as objects a client could make them take twenty times the memory."""
    answered: bool = False
    """Whether the client knows the message's id."""
    taken: bool = False


class SentMessages:
    """Those of one worker's clients of which it is not known yet that anybody has taken them."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._expected: dict[str, _Sent] = {}
        self._newest: WeakKeyDictionary[Session, deque[str]] = WeakKeyDictionary()

    def __len__(self) -> int:
        return len(self._expected)

    async def start(self) -> None:
        """Listen to all workers."""
        with suppress(BusError):  # it takes effect once the bus is back
            await self._bus.answer(taken_subject(PROCESS), self._hear)

    @contextmanager
    def expecting(self, session: Session, message_id: str, message: Envelope) -> Iterator[None]:
        """Publish a client's message under this id, and tell the client, inside the block."""
        fields = msgspec.json.encode(status_fields(message, "delivered"))
        newest = self._newest.setdefault(session, deque())
        newest.append(message_id)
        if len(newest) > MOST_OF_ONE:
            self._expected.pop(newest.popleft(), None)
        self._expected[message_id] = _Sent(ref(session), message.channel, fields)
        if len(self._expected) > MOST_EXPECTED:
            del self._expected[next(iter(self._expected))]
        try:
            yield
        except BaseException:
            self._expected.pop(message_id, None)
            raise
        self._note(message_id, answered=True)

    def _hear(self, payload: bytes, _respond: Respond) -> None:
        self._note(payload.decode("ascii", "replace"), taken=True)

    def _note(self, message_id: str, **known: Any) -> None:
        """More is known of a message. Each worker with members may say that it was taken; the first counts."""
        before = self._expected.get(message_id)
        if before is None:
            return
        sent = self._expected[message_id] = before._replace(**known)
        session = sent.session()
        if sent.answered and sent.taken:
            del self._expected[message_id]
            if session is not None:
                session.push(_receipt(message_id, sent))


def _receipt(message_id: str, sent: _Sent) -> Envelope:
    fields = msgspec.json.decode(sent.fields) | {"message_id": message_id}
    return Envelope(
        MessageType.PUB,
        channel=sent.channel,
        id=message_id,
        event="message_status_update",
        data=fields,
        extra=fields,
        time=unix_ms(),
    )
