"""What one worker tells of its users."""

from fanline.engine.presence.attendance import LINGER_SECONDS, Attendance
from fanline.engine.presence.delta import digest, split_digests


def test_what_comes_and_goes_between_two_rounds_is_one_delta() -> None:
    attendance = Attendance("w", 10)
    for user in ("ann", "bob", "ann"):
        attendance.enter("room:1", user, None)
    attendance.leave("room:1", "bob")
    assert list(attendance.dirty) == ["room:1"]
    delta = attendance.take("room:1")
    assert delta is not None
    assert (delta.users, delta.gone, delta.connections) == ({"ann": (2, None)}, ("bob",), 2)
    assert attendance.take("room:1") is None


def test_deltas_of_a_channel_name_the_one_before_and_numbers_grow_over_all_channels() -> None:
    attendance = Attendance("w", 10)
    numbers = []
    for channel, user in (("room:1", "ann"), ("room:2", "bob"), ("room:1", "cid")):
        attendance.enter(channel, user, None)
        delta = attendance.take(channel)
        assert delta is not None
        numbers.append((delta.previous, delta.number))
    assert numbers == [(0, 1), (0, 2), (1, 3)]
    assert attendance.numbers(["room:1", "room:2", "room:3"]) == [3, 2, 0]
    assert attendance.snapshot("room:3").number == 3


def test_nothing_is_kept_of_a_channel_that_everybody_has_left() -> None:
    attendance = Attendance("w", 10)
    attendance.enter("room:1", "ann", None)
    attendance.enter("room:1", None, None)
    attendance.take("room:1")
    attendance.lose("room:1", "ann", 0.0)
    attendance.leave("room:1", None)
    delta = attendance.take("room:1")
    assert delta is not None
    assert (delta.users, delta.connections, delta.anonymous) == ({"ann": (0, None)}, 0, 0)
    assert attendance.next_expiry == LINGER_SECONDS
    attendance.expire(LINGER_SECONDS)
    delta = attendance.take("room:1")
    assert delta is not None
    assert delta.gone == ("ann",)
    assert (attendance.numbers(["room:1"]), list(attendance.dirty), attendance.next_expiry) == ([0], [], float("inf"))


def test_only_the_last_of_several_losses_counts() -> None:
    attendance = Attendance("w", 10)
    for moment in (0.0, 3.0):
        attendance.enter("room:1", "ann", None)
        attendance.lose("room:1", "ann", moment)
    attendance.expire(LINGER_SECONDS)
    assert attendance.snapshot("room:1").users == {"ann": (0, None)}
    attendance.expire(3.0 + LINGER_SECONDS)
    assert attendance.snapshot("room:1").users == {}


def test_a_channel_with_many_users_is_told_in_digests_until_it_is_much_smaller() -> None:
    attendance = Attendance("w", 10)
    for number in range(11):
        attendance.enter("room:1", str(number), None)
    delta = attendance.take("room:1")
    assert delta is not None
    assert (delta.large, delta.previous, delta.users) == (True, 0, {})
    assert set(split_digests(delta.came_digests)) == {digest(str(number)) for number in range(11)}
    for number in range(11):
        attendance.leave("room:1", str(number))
        delta = attendance.take("room:1")
        assert delta is not None
        left = 10 - number
        assert delta.large is (left > 8)
        if left == 8:
            assert delta.previous == 0
            assert len(delta.users) == 8
