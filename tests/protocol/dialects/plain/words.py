"""What plain clients say and hear, at one moment."""

import json
from typing import Any

from fanline.protocol.dialects import PLAIN, Dialect
from fanline.protocol.envelope import Envelope
from fanline.protocol.websocket.routes import Visit

NOW = 1_789_000_000_123
NOW_ISO = "2026-09-10T00:26:40.123Z"


def said(visit: Visit = Visit(), dialect: Dialect = PLAIN, **fields: Any) -> Envelope:  # noqa: B008  # it is immutable
    """The one command in a client's message."""
    (command,) = dialect.decode(json.dumps(fields).encode(), visit)
    return command


def told(payload: bytes | None) -> Any:
    """A message to a client."""
    assert payload is not None
    return json.loads(payload)
