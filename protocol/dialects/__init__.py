"""Dialects: what a connection speaks. Adding one (Pusher, Centrifuge, SSE) touches only this package."""

from fanline.protocol.dialects.base import Dialect
from fanline.protocol.dialects.plain import PlainDialect
from fanline.protocol.dialects.v1 import CborDialect, JsonDialect

JSON = JsonDialect()
CBOR = CborDialect()
PLAIN = PlainDialect()

BY_SUBPROTOCOL: dict[str, Dialect] = {JSON.subprotocol: JSON, CBOR.subprotocol: CBOR}
"""Subprotocol -> dialect. A client that asks for no subprotocol speaks PLAIN."""

__all__ = ["BY_SUBPROTOCOL", "CBOR", "JSON", "PLAIN", "CborDialect", "Dialect", "JsonDialect", "PlainDialect"]
