"""What one worker makes of what the others say."""

from fanline.engine.presence.delta import PresenceDelta, decode
from fanline.engine.presence.roster import Roster


def delta(worker: str, number: int, previous: int, *here: str, gone: tuple[str, ...] = ()) -> PresenceDelta:
    return PresenceDelta(worker, number, previous, users=dict.fromkeys(here, (1, None)), gone=gone)


def changes(roster: Roster) -> list[tuple[str, bool]]:
    return [(change.user.user_id, change.came) for change in roster.changes()]


def test_a_late_delta_changes_nothing() -> None:
    roster = Roster()
    first, second = delta("a", 1, 0, "ann"), delta("a", 2, 1, gone=("ann",))
    for each in (first, second, first, second, first):
        assert roster.take(each)
    assert (roster.count, roster.number_of("a")) == (0, 2)


def test_after_a_lost_delta_a_snapshot_is_needed_and_nothing_is_taken_before() -> None:
    roster = Roster()
    assert not roster.take(delta("a", 2, 1, "bob"))
    assert roster.take(delta("a", 1, 0, "ann"))
    assert not roster.take(delta("a", 5, 3, "cid"))
    assert changes(roster) == [("ann", True)]
    assert roster.take(delta("a", 7, 0, "bob", "cid"))
    assert changes(roster) == [("bob", True), ("cid", True), ("ann", False)]


def test_what_comes_to_nothing_is_no_change() -> None:
    roster = Roster()
    roster.take(delta("a", 1, 0, "ann", "bob"))
    roster.changes()
    roster.take(delta("a", 2, 1, "cid", gone=("ann",)))
    roster.take(delta("b", 1, 0, "ann"))
    roster.take(delta("a", 3, 2, gone=("cid",)))
    assert changes(roster) == []


def test_a_user_of_two_workers_is_gone_when_both_have_lost_it() -> None:
    roster = Roster()
    roster.take(delta("a", 1, 0, "ann"))
    roster.take(delta("b", 1, 0, "ann"))
    roster.changes()
    roster.drop("a")
    roster.drop("unknown")
    assert changes(roster) == []
    roster.drop("b")
    assert changes(roster) == [("ann", False)]
    assert roster.workers == []


def test_what_cannot_be_read_is_no_delta() -> None:
    for payload in (b"", b"{}", b"\xff", b'{"worker":1,"number":1}', b"[" * 10_000):
        assert decode(payload) is None
