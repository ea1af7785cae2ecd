"""What has become of workers, as the list of live ones tells it late."""

from fanline.engine.cluster.members import Member
from fanline.workers.control.monitoring.news import RECENT_SECONDS, ServerChange, WorkerNews

NOW = 1_000_000.0
DIED, RESTARTED, RETURNED = ServerChange.WORKER_DIED, ServerChange.WORKER_RESTARTED, ServerChange.WORKER_RETURNED


def member(pid: int, name: str = "worker-0", server: str = "h/1", died: str = "", age: float = 1.0) -> Member:
    started = int((NOW - age) * 1000) + pid
    return Member(host="h", pid=pid, name=name, started=started, server=server, died=died)


def told(news: WorkerNews, *live: Member) -> list[tuple[str, int, bool]]:
    """What is new: event, process id, whether it was to be expected. The id of a worker is its process id's text."""
    changes = news.look({str(each.pid): each for each in live}, NOW)
    return [(change.event, change.member.pid, change.expected) for change in changes]


def test_a_worker_that_died_and_its_successor_are_one_piece_of_news() -> None:  # S2-108
    news, next_one = WorkerNews(), member(2, died="signal 9")
    assert told(news, member(1)) == []
    assert told(news, member(1), next_one) == [(RESTARTED, 2, False)]
    assert told(news, member(1), next_one) == []
    assert told(news, next_one) == []


def test_a_worker_without_a_successor_is_said_to_have_died_and_then_to_have_been_replaced() -> None:
    news, next_one = WorkerNews(), member(2, died="signal 9")
    told(news, member(1), member(5, "worker-1"))
    assert told(news, member(5, "worker-1")) == [(DIED, 1, False)]
    assert told(news, member(5, "worker-1"), next_one) == [(RESTARTED, 2, False)]


def test_a_worker_that_was_frozen_has_returned_and_was_not_restarted() -> None:
    news = WorkerNews()
    told(news, member(1))
    assert told(news) == [(DIED, 1, False)]
    assert told(news, member(1)) == [(RETURNED, 1, False)]
    assert told(news) == [(DIED, 1, False)]
    assert told(news, member(2, died="signal 9")) == [(RESTARTED, 2, False)]


def test_a_worker_that_was_told_to_end_is_no_death() -> None:
    news = WorkerNews()
    told(news, member(1))
    news.drains("1")
    assert told(news) == []
    assert told(news, member(2)) == [(RESTARTED, 2, True)]
    assert told(news) == [(DIED, 2, False)]


def test_a_worker_that_was_told_to_end_while_nobody_listened_has_an_expected_successor() -> None:
    news = WorkerNews()
    told(news, member(1))
    assert told(news, member(1), member(2)) == [(RESTARTED, 2, True)]


def test_a_process_that_begins_after_a_death_tells_it_by_the_successor() -> None:
    assert told(WorkerNews(), member(2, died="signal 9"), member(5, "worker-1")) == [(RESTARTED, 2, False)]


def test_a_restart_of_long_ago_is_no_news_to_a_process_that_begins() -> None:
    assert told(WorkerNews(), member(2, died="signal 9", age=RECENT_SECONDS + 1)) == []


def test_workers_of_another_server_have_the_same_names_and_are_no_successors() -> None:
    news = WorkerNews()
    told(news, member(1))
    assert told(news, member(1), member(2, server="h/2")) == []
