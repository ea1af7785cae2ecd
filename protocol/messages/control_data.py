"""What the data of all control messages has in common, and how it is read."""

from typing import Any, ClassVar, Self, TypeVar

import msgspec

from fanline.protocol.envelope import Envelope
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.text import explain


class ControlData(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Base of all control data."""

    expected: ClassVar[str] = ""
    """How a command is meant, for the sender of another one; empty: that it is the data of its type."""

    def fields(self) -> dict[str, Any]:
        """The `d` of an envelope. Keys come in the order of the class; optional ones that have their default are left
        out.
        """
        fields: dict[str, Any] = msgspec.to_builtins(self, builtin_types=(bytes,))
        return fields

    @classmethod
    def from_value(cls, value: Any) -> Self:
        """Check and convert a decoded `d`; None reads as an empty map. Raises msgspec.ValidationError."""
        return msgspec.convert({} if value is None else value, cls)


Data = TypeVar("Data", bound=ControlData)


def read(kind: type[Data], envelope: Envelope) -> Data:
    """The control data of an envelope; no data reads as an empty map. Raises MessageError(BAD_MESSAGE)."""
    try:
        return kind.from_value(envelope.value)
    except msgspec.ValidationError as error:
        expected = kind.expected or f"the data of `{envelope.type}`"
        raise MessageError(ErrorCode.BAD_MESSAGE, f"{expected}: {explain(error)}", envelope.id) from None
