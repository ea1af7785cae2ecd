"""The server's control messages, as a client reads them."""

from fanline.errors import ConnectionLost, ServerError
from fanline.protocol.envelope import Envelope
from fanline.protocol.errors import MessageError
from fanline.protocol.messages.answers import error_of
from fanline.protocol.messages.control_data import Data, read


def read_control(kind: type[Data], envelope: Envelope) -> Data:
    """The control data of an envelope. Raises a final ConnectionLost if it cannot be read: the server would say the
    same on the next connection.
    """
    try:
        return read(kind, envelope)
    except MessageError as error:
        raise ConnectionLost(f"the server sent what cannot be read: {error}", final=True) from None


def server_error(reply: Envelope) -> ServerError:
    """The error that an `err` stands for."""
    refusal = error_of(reply)
    return ServerError(refusal.code, refusal.message)
