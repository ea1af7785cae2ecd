"""When the users of a worker that is no longer live are gone."""

from fanline.engine.cluster.members import EXPIRY_SECONDS, SIGN_SECONDS, SILENT_LOOKS
from fanline.engine.presence.attendance import LINGER_SECONDS
from fanline.engine.presence.deaths import GRACE_SECONDS, Deaths


def test_a_worker_that_is_missed_for_the_grace_period_is_dead_once() -> None:
    deaths = Deaths()
    assert deaths.look({"a", "b"}, ["b"], 0.0) == ([], True)
    assert deaths.look({"a"}, ["b"], 1.0) == ([], False)
    assert deaths.look({"a"}, ["b"], 1.0 + GRACE_SECONDS - 0.01) == ([], False)
    assert not deaths.is_dead("b")
    assert deaths.look({"a"}, ["b"], 1.0 + GRACE_SECONDS) == (["b"], False)
    assert deaths.is_dead("b")
    assert deaths.look({"a"}, [], 30.0) == ([], False)


def test_a_worker_that_is_live_again_in_time_was_never_dead() -> None:
    deaths = Deaths()
    deaths.look({"a", "b"}, ["b"], 0.0)
    deaths.look({"a"}, ["b"], 1.0)
    assert deaths.look({"a", "b"}, ["b"], 2.0) == ([], True)
    assert deaths.look({"a"}, ["b"], 3.0) == ([], False)
    assert deaths.look({"a"}, ["b"], 2.0 + GRACE_SECONDS) == ([], False)


def test_a_worker_that_was_heard_of_before_it_was_seen_has_the_grace_period_to_show_up() -> None:
    deaths = Deaths()
    assert deaths.look({"a"}, ["new"], 0.0) == ([], True)
    assert deaths.look({"a"}, ["new"], GRACE_SECONDS) == (["new"], False)


def test_a_dead_worker_that_is_live_again_is_news() -> None:
    deaths = Deaths()
    deaths.look({"a"}, ["b"], 0.0)
    deaths.look({"a"}, ["b"], 10.0)
    assert deaths.look({"a", "b"}, [], 11.0) == ([], True)
    assert not deaths.is_dead("b")


def test_users_of_a_killed_worker_have_their_five_seconds_and_are_gone_after_ten() -> None:
    assert EXPIRY_SECONDS - SIGN_SECONDS + GRACE_SECONDS >= LINGER_SECONDS
    assert (SILENT_LOOKS + 1) * SIGN_SECONDS + GRACE_SECONDS <= 10.0
