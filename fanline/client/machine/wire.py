"""One connection's messages: envelopes to bytes and back, within the server's limits."""

from fanline.errors import ConnectionLost, ConnectionRefused, ServerError
from fanline.protocol.channels import check_channel, check_channel_or_pattern
from fanline.protocol.dialects import CborDialect, JsonDialect
from fanline.protocol.envelope import Envelope, MessageType, check_texts
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.messages.answers import error_of
from fanline.protocol.messages.control_data import read
from fanline.protocol.messages.notices import Welcome

V1Dialect = JsonDialect | CborDialect
MAX_MESSAGE_BYTES = 8 << 20
_FOR_PATTERNS = frozenset((MessageType.SUB, MessageType.UNSUB))
_OF_CHECKED_DATA = frozenset((MessageType.PUB, MessageType.CALL))
"""Their data is the program's own, and was checked when it was converted; it may be large."""


class ServerWire:
    def __init__(self, dialect: V1Dialect) -> None:
        self.dialect = dialect
        self.limit = MAX_MESSAGE_BYTES
        """Bytes of a message that the server takes."""

    def encode(self, command: Envelope) -> bytes:
        """Raises ServerError for a command that the server could only refuse: too large, no channel name, a text too
        long, a number out of range. (It could not even say which command that was.) UnicodeEncodeError for half a
        character.
        """
        try:
            check_texts(command)
            if command.channel is not None:
                check = check_channel_or_pattern if command.type in _FOR_PATTERNS else check_channel
                check(command.channel)
        except MessageError as error:
            raise ServerError(error.code, str(error)) from None
        payload = self.dialect.encode(command)
        if len(payload) > self.limit:
            raise ServerError(ErrorCode.TOO_LARGE, f"{len(payload)} bytes, but the server takes {self.limit}")
        if command.type not in _OF_CHECKED_DATA:
            self._check_readable(payload)
        return payload

    def _check_readable(self, payload: bytes) -> None:
        try:
            self.dialect.decode(payload)
        except MessageError as error:
            raise ServerError(error.code, str(error)) from None

    def decode(self, payload: bytes) -> list[Envelope]:
        """The envelopes of one message. Raises a final ConnectionLost."""
        try:
            return self.dialect.decode(payload)
        except MessageError as error:
            raise ConnectionLost(f"the server sent what cannot be read: {error}", final=True) from None


def read_welcome(envelope: Envelope) -> Welcome:
    """The server's first message. Raises a final ConnectionRefused if it is a refusal, or no welcome."""
    if envelope.type == MessageType.ERR:
        raise ConnectionRefused(error_of(envelope).message, status=401, final=True)
    try:
        return read(Welcome, envelope)
    except MessageError as error:
        raise ConnectionRefused(f"the server's welcome cannot be read: {error}", final=True) from None


def no_server() -> ConnectionRefused:
    """Another subprotocol than ours was chosen, or none."""
    return ConnectionRefused("this is no Fanline server: it does not know our subprotocol", final=True)
