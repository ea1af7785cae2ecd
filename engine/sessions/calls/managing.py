"""Calls of the management API that clients make on the monitor.

The control process of this server performs them, as if the client had called it by HTTP with the credentials that it
presented here: only the control process knows the calls, their rights and the audit log.
"""

from typing import Any, NoReturn
from weakref import WeakSet

import msgspec
import trio

from fanline.engine.access.keys.key_holders import KeyHolders
from fanline.engine.sessions.refusals import close_reason
from fanline.engine.sessions.session import Session
from fanline.engine.sockets.control_socket import ControlSocket
from fanline.protocol.channels import namespace_of
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.errors import ErrorCode, HttpError, MessageError
from fanline.protocol.http.forwarding import BodyReader, posted_head
from fanline.protocol.management.monitor import CALL_PATH
from fanline.protocol.nats.names import MONITOR_NAMESPACE
from fanline.protocol.text import harmless

MAX_ANSWER_BYTES = 512 * 1024
"""Of one call: half of what may wait for a client that reads slowly."""
KEY_SECONDS = 3.0
"""Between two looks at the keys of those who watch."""
_CODES = {
    400: ErrorCode.BAD_MESSAGE,
    401: ErrorCode.UNAUTHENTICATED,
    403: ErrorCode.PERMISSION_DENIED,
    404: ErrorCode.REFUSED,
    409: ErrorCode.BAD_STATE,
    413: ErrorCode.TOO_LARGE,
    422: ErrorCode.BAD_MESSAGE,
}


class Managing:
    """For the sessions of one worker."""

    def __init__(self, control: ControlSocket, key_holders: KeyHolders) -> None:
        self._control = control
        self._key_holders = key_holders
        self._sessions: WeakSet[Session] = WeakSet()

    def meet(self, session: Session) -> None:
        """A session has begun."""
        if session.route.options.manages:
            self._sessions.add(session)

    async def run(self) -> NoReturn:
        """Close, forever, connections whose key has been revoked. The expiry and revocation of tokens concern all
        sessions alike; keys are used only here.
        """
        while True:
            await trio.sleep(KEY_SECONDS)
            for session in list(self._sessions):
                try:
                    await self._key_holders.identify(session.credential)
                except MessageError as error:
                    if error.code is not ErrorCode.UNAVAILABLE:
                        session.close(close_reason(error))

    def takes_call(self, session: Session, channel: str) -> bool:
        """Whether a `call` on a channel is one of the management API."""
        return session.route.options.manages and namespace_of(channel) == MONITOR_NAMESPACE

    async def message(self, session: Session, command: Envelope) -> Envelope:
        """The answer to a message of a plain client, whose type names the call. MessageError."""
        fields = command.data
        name = str(getattr(command, "said", {}).get("type", command.type))
        return Envelope(MessageType.OK, data=await self._perform(session, name, fields))

    async def call(self, session: Session, command: Envelope, channel: str) -> Envelope:
        """The answer to a `call`, whose verb names the call. MessageError."""
        return Envelope(
            MessageType.OK, channel=channel, data=await self._perform(session, command.event or "", command.value)
        )

    async def _perform(self, session: Session, name: str, fields: Any) -> Any:
        if not isinstance(fields, dict):
            fields = {}
        body = msgspec.json.encode({"call": name, "fields": fields})
        head = posted_head(CALL_PATH, len(body), session.credential, session.origin.address)
        reader = BodyReader()
        try:
            self._control.check()
            await self._control.ask(head + body, reader, lambda size: _check_size(len(reader.data) + size))
        except HttpError as error:
            raise MessageError(ErrorCode.UNAVAILABLE, f"{harmless(name)}: {error}") from None
        return _read(name, reader)


def _check_size(size: int) -> None:
    if size > MAX_ANSWER_BYTES:
        raise HttpError(503, f"the answer has more than {MAX_ANSWER_BYTES} bytes; ask for less at a time")


def _read(name: str, reader: BodyReader) -> Any:
    """What was answered. MessageError if the call was refused."""
    try:
        answer = msgspec.json.decode(reader.body)
    except msgspec.DecodeError:
        raise MessageError(ErrorCode.UNAVAILABLE, f"{harmless(name)}: no answer that can be read") from None
    known = answer if isinstance(answer, dict) else {}
    if reader.status < 400 or "error" not in known:  # `health` answers 503, too
        return answer
    if known["error"] == "unknown_call":
        raise MessageError(ErrorCode.UNKNOWN_TYPE, f"Unknown message type: {harmless(name)}")
    code = _CODES.get(reader.status, ErrorCode.UNAVAILABLE)
    raise MessageError(code, f"{harmless(name)}: {known.get('message', 'refused')}")
