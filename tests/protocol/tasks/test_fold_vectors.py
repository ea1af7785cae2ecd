"""The fold against the golden histories in tests/vectors."""

from typing import Any

import msgspec
import pytest

from fanline.protocol.envelope import Envelope
from fanline.protocol.errors import MessageError
from fanline.protocol.tasks.events import data_of, event_of
from fanline.protocol.tasks.fold import apply
from fanline.protocol.tasks.snapshot import Snapshot, snapshot_fields
from tests.vectors import load, names

FOLDS = load("tasks.json", "folds")


@pytest.mark.parametrize("row", FOLDS, ids=names(FOLDS))
def test_golden_events_fold_to_their_snapshot(row: dict[str, Any]) -> None:
    snapshot, left_out = Snapshot(), []
    for index, said in enumerate(row["events"]):
        envelope = Envelope(event=said["e"], data=said["d"])
        event = event_of(envelope)
        assert event is not None
        try:
            snapshot = apply(snapshot, event, data_of(envelope, event), said["ts"])
        except MessageError:
            left_out.append(index)
    assert left_out == row["left_out"]
    assert msgspec.json.decode(msgspec.json.encode(snapshot_fields(snapshot))) == row["snapshot"]
