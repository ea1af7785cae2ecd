"""One connection's messages: envelopes to bytes and back, within the server's limits."""

from fanline.errors import ConnectionLost, ConnectionRefused, ServerError
from fanline.protocol.channels import check_channel, check_channel_or_pattern
from fanline.protocol.dialects import CborDialect, JsonDialect
from fanline.protocol.envelope import Envelope, MessageType, check_texts
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.messages import Welcome, error_of, read

V1Dialect = JsonDialect | CborDialect
MAX_MESSAGE_BYTES = 8 << 20
_FOR_PATTERNS = frozenset((MessageType.SUB, MessageType.UNSUB))


class ServerWire:
    def __init__(self, dialect: V1Dialect) -> None:
        self.dialect = dialect
        self.limit = MAX_MESSAGE_BYTES
        """Bytes of a message that the server takes."""

    def encode(self, command: Envelope) -> bytes:
        """Raises ServerError for a command that the server could only refuse: too large, no channel name, a text too
        long. (It could not even say which command that was.)
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
        return payload

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
