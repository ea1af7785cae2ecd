"""Every message to a plain client has the time at which it was made, a `gap` as well."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fanline.engine.bus.stored import Epoch
from fanline.engine.channels.durable.channel import DurableChannel
from fanline.engine.faults import fault_gap
from fanline.engine.namespaces import Namespace
from fanline.protocol.dialects import PLAIN
from fanline.protocol.messages.notices import GapReason


def shown(envelope: Any) -> dict[str, Any]:
    return dict(json.loads(PLAIN.encode(envelope)))


@pytest.mark.parametrize("kind", ["fault", "durable"])
def test_a_gap_says_when_it_was(kind: str) -> None:
    durable = DurableChannel("task:1", Namespace(durable=True), 10)
    durable.epoch = Epoch("e")
    message = shown(fault_gap("task:1", 1) if kind == "fault" else durable.gap(1, 2, GapReason.EXPIRED))
    assert message["type"] == "gap"
    assert datetime.now(UTC) - datetime.fromisoformat(message["timestamp"]) < timedelta(minutes=1)
