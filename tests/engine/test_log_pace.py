"""How often something is logged that may happen very often."""

from fanline.engine.log_pace import LogPace


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_subject_is_logged_once_in_the_time_and_others_beside_it() -> None:
    clock = Clock()
    pace = LogPace(10.0, clock)
    assert [pace.allows("one"), pace.allows("one"), pace.allows("other")] == [True, False, True]
    clock.now = 9.9
    assert not pace.allows("one")
    clock.now = 10.0
    assert [pace.allows("one"), pace.allows("one")] == [True, False]


def test_no_more_subjects_than_allowed_are_logged_in_the_time() -> None:
    clock = Clock()
    pace = LogPace(10.0, clock, most=2)
    assert [pace.allows(subject) for subject in range(4)] == [True, True, False, False]
    clock.now = 10.0
    assert [pace.allows(subject) for subject in (3, 2, 1)] == [True, True, False]
