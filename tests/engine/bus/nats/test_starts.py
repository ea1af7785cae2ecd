"""The starts of the embedded server as a stream's metadata says them, and the epochs that are made of them."""

from typing import Any

from fanline.engine.bus.nats.jetstream import epoch_of
from fanline.engine.bus.nats.streams.starts import STARTS, read_starts, with_start
from fanline.engine.bus.stored import Epoch

CREATED = "2026-01-01T00:00:00.000001Z"


def stream(last: int = 0, starts: str | None = None) -> dict[str, Any]:
    """A reply to STREAM.INFO."""
    metadata = {"_nats.ver": "2.15.1"} | ({} if starts is None else {STARTS: starts})
    return {"config": {"name": "S", "metadata": metadata}, "state": {"last_seq": last}, "created": CREATED}


def after_starts(*starts: tuple[str, int]) -> dict[str, Any]:
    """A stream that reached an offset, and then saw a start; several times."""
    info = stream()
    for name, last in starts:
        info["state"]["last_seq"] = last
        info["config"] = with_start(info, name)
    return info


def test_a_stream_without_starts_has_an_epoch_of_its_creation_alone() -> None:
    for info in (stream(5), {**stream(5), "config": {}}):
        epoch = epoch_of(info)
        assert epoch.earlier == {}
        assert epoch.name.isalnum()


def test_offsets_up_to_the_end_of_an_earlier_start_still_hold() -> None:
    info = after_starts(("a", 10), ("b", 30))
    first, epoch = epoch_of(stream()).name, epoch_of(info)
    assert epoch.name == f"{first}.b"
    assert epoch.earlier == {first: 10, f"{first}.a": 30}
    assert epoch.covers(f"{first}.a", 30)
    assert not epoch.covers(f"{first}.a", 31)
    assert epoch.covers(epoch.name, 1_000_000)
    assert epoch.covers(None, 1_000_000)
    assert not epoch.covers(f"{first}.c", 0)


def test_a_start_from_an_older_copy_voids_what_all_earlier_ones_had_behind_it() -> None:
    info = after_starts(("a", 10), ("b", 30), ("c", 20))
    assert read_starts(info) == {"": 10, "a": 20, "b": 20, "c": 0}


def test_a_hundred_starts_are_remembered_and_other_metadata_stays() -> None:
    info = after_starts(*((f"s{number}", number) for number in range(150)))
    assert list(read_starts(info)) == [f"s{number}" for number in range(49, 150)]
    assert info["config"]["name"] == "S"
    assert info["config"]["metadata"]["_nats.ver"] == "2.15.1"


def test_an_epoch_covers_nothing_of_a_stream_that_was_created_at_another_time() -> None:
    former = epoch_of({**stream(), "created": "2025-01-01T00:00:00Z"})
    assert not epoch_of(stream(100)).covers(former.name, 0)
    assert isinstance(former, Epoch)
