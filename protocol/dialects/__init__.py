"""Dialects: what a connection speaks. Adding one (Pusher, Centrifuge, SSE) touches only this package."""

from fanline.protocol.dialects.base import Dialect
from fanline.protocol.dialects.plain.flat import FlatDialect
from fanline.protocol.dialects.plain.plain import PlainDialect
from fanline.protocol.dialects.plain.probes import EchoDialect, HealthDialect
from fanline.protocol.dialects.v1 import CborDialect, JsonDialect

JSON = JsonDialect()
CBOR = CborDialect()
PLAIN = PlainDialect()
FLAT = FlatDialect()
HEALTH = HealthDialect()
ECHO = EchoDialect()

BY_SUBPROTOCOL: dict[str, Dialect] = {JSON.subprotocol: JSON, CBOR.subprotocol: CBOR}
"""Subprotocol -> dialect. A client that asks for no subprotocol speaks PLAIN, or that of its route."""

__all__ = [
    "BY_SUBPROTOCOL",
    "CBOR",
    "ECHO",
    "FLAT",
    "HEALTH",
    "JSON",
    "PLAIN",
    "CborDialect",
    "Dialect",
    "EchoDialect",
    "FlatDialect",
    "HealthDialect",
    "JsonDialect",
    "PlainDialect",
]
