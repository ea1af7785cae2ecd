"""The delay before a restart."""

from fanline.workers.supervision.restarts import RestartDelays


def test_the_first_restart_is_immediate_and_then_the_delay_doubles_up_to_a_cap() -> None:
    delays = RestartDelays()
    assert [delays.next_delay(0.5) for _ in range(9)] == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_a_life_of_ten_seconds_starts_it_over() -> None:
    delays = RestartDelays()
    assert [delays.next_delay(lived) for lived in (1, 1, 9.9, 10, 1)] == [0.0, 0.1, 0.2, 0.0, 0.1]


def test_it_stays_at_the_cap_however_long_a_process_keeps_failing() -> None:
    delays = RestartDelays()
    seen = [delays.next_delay(0) for _ in range(5000)]
    assert max(seen) == seen[-1] == 5.0
