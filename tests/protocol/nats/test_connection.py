"""An open connection without I/O: dispatch, the order of confirmations, denials, liveness, and its end."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanline.protocol.nats.commands import PING, PONG, publish, subscribe
from fanline.protocol.nats.connection import DEAD_SECONDS, DEAD_TICKS, PING_TICKS, NatsConnection, NatsSubscriptions
from fanline.protocol.nats.parser import NatsError, NatsMessage, Parser
from fanline.protocol.nats.replies import Complaint, ComplaintKind, ServerInfo


class Opened:
    """An open connection, and what it has told."""

    def __init__(self, info: ServerInfo | None = None) -> None:
        self.subscriptions = NatsSubscriptions()
        self.work = 0
        self.complaints: list[Complaint] = []
        self.outcomes: list[tuple[str, str]] = []
        self.connection = NatsConnection(
            info or ServerInfo(),
            Parser(),
            self.subscriptions,
            on_work=self._count_work,
            on_complaint=self.complaints.append,
        )

    def _count_work(self) -> None:
        self.work += 1

    def outcome(self, name: str) -> Callable[[NatsError | None], None]:
        """Takes the outcome of a confirmation down under this name."""
        return lambda error: self.outcomes.append((name, str(error or "confirmed")))


# --- writing ------------------------------------------------------------------------------------------------------


def test_commands_leave_in_their_order_and_once() -> None:
    connection = Opened().connection
    connection.send(publish("a", b"1"))
    connection.send(publish("b", b"2"))
    assert connection.take_output() == publish("a", b"1") + publish("b", b"2")
    assert connection.take_output() == b""


def test_the_shell_is_woken_once_for_all_that_it_can_take_at_once() -> None:
    opened = Opened()
    for _ in range(3):
        opened.connection.send(PING)
    assert opened.work == 1
    opened.connection.take_output()
    assert opened.work == 1
    opened.connection.send(PING)
    assert opened.work == 2


def test_bytes_count_as_unsent_until_they_are_written() -> None:
    connection = Opened().connection
    connection.send(b"12345")
    connection.send(b"678")
    assert connection.unsent_bytes == 8
    taken = connection.take_output()
    assert connection.unsent_bytes == 8
    connection.written(6)
    connection.send(b"9")
    assert connection.unsent_bytes == len(taken) - 6 + 1
    connection.written(2)
    connection.written(len(connection.take_output()))
    assert connection.unsent_bytes == 0


# --- dispatch -----------------------------------------------------------------------------------------------------


def test_messages_of_one_read_reach_their_sinks_in_order_before_it_returns() -> None:
    opened, heard = Opened(), list[tuple[str, NatsMessage]]()
    one = opened.subscriptions.add("a", lambda message: heard.append(("one", message)))
    two = opened.subscriptions.add("b.*", lambda message: heard.append(("two", message)))
    opened.connection.receive(b"MSG a %d 1\r\n1\r\nMSG b.c %d r 1\r\n2\r\nMSG a %d 1\r\n3\r\n" % (one, two, one))
    assert heard == [
        ("one", NatsMessage(one, "a", "", b"1")),
        ("two", NatsMessage(two, "b.c", "r", b"2")),
        ("one", NatsMessage(one, "a", "", b"3")),
    ]


def test_a_removed_subscription_hears_nothing_more_even_of_the_same_read() -> None:
    opened, heard = Opened(), list[bytes]()

    def take(message: NatsMessage) -> None:
        heard.append(message.payload)
        opened.subscriptions.remove(sid)

    sid = opened.subscriptions.add("a", take)
    opened.connection.receive(b"MSG a %d 1\r\n1\r\nMSG a %d 1\r\n2\r\nMSG x 99 1\r\n3\r\n" % (sid, sid))
    assert heard == [b"1"]


def test_a_sink_that_raises_hurts_no_other_and_is_logged_once_for_each_of_some_subjects(
    caplog: pytest.LogCaptureFixture,
) -> None:
    opened, heard = Opened(), list[bytes]()

    def fail(message: NatsMessage) -> None:
        raise ZeroDivisionError

    bad = opened.subscriptions.add("bad.>", fail)
    good = opened.subscriptions.add("good", lambda message: heard.append(message.payload))
    for number in range(300):
        for _ in range(2):
            opened.connection.receive(b"MSG bad.%d %d 1\r\n1\r\nMSG good %d 1\r\n2\r\n" % (number, bad, good))
    assert len(heard) == 600
    assert len(caplog.records) == 100
    assert "a message on bad.7 could not be delivered" in caplog.text


def test_a_number_is_never_given_twice() -> None:
    subscriptions = NatsSubscriptions()
    first = subscriptions.add("a", lambda _: None)
    subscriptions.remove(first)
    assert subscriptions.add("a", lambda _: None) != first


def test_a_new_connection_is_told_the_subscriptions_that_are_left() -> None:
    subscriptions = NatsSubscriptions()
    sids = [subscriptions.add(subject, lambda _: None) for subject in ("a", "b", "c")]
    subscriptions.remove(sids[1])
    assert subscriptions.commands() == subscribe("a", sids[0]) + subscribe("c", sids[2])
    assert NatsSubscriptions().commands() == b""


def test_a_ping_is_answered() -> None:
    opened = Opened()
    opened.connection.receive(b"PING\r\n+OK\r\nPING\r\n")
    assert opened.connection.take_output() == PONG * 2


def test_the_newest_info_counts() -> None:
    opened = Opened(ServerInfo(version="1"))
    opened.connection.receive(b'INFO {"version":"2","ldm":true}\r\n')
    assert (opened.connection.info.version, opened.connection.info.ldm) == ("2", True)


# --- confirmations ------------------------------------------------------------------------------------------------


def test_a_confirmation_is_a_ping_behind_the_commands_that_it_confirms() -> None:
    opened = Opened()
    opened.connection.send(subscribe("a", 1))
    opened.connection.confirm(opened.outcome("a"))
    assert opened.connection.take_output() == subscribe("a", 1) + PING
    assert opened.outcomes == []
    opened.connection.receive(b"PONG\r\n")
    assert opened.outcomes == [("a", "confirmed")]


@given(st.lists(st.sampled_from(("confirm", "pong", "tick", "ping")), max_size=40))
def test_confirmations_come_in_their_order_and_all_of_them_by_the_end(events: list[str]) -> None:
    opened, asked, pongs, silent = Opened(), list[str](), 0, 0
    for event in events:
        silent = silent + 1 if event == "tick" else 0 if event in ("pong", "ping") else silent
        if silent == DEAD_TICKS:
            break
        if event == "confirm":
            asked.append(str(len(asked)))
            opened.connection.confirm(opened.outcome(asked[-1]))
        elif event == "tick":
            opened.connection.tick()
            if silent == PING_TICKS:
                asked.append("")  # the connection asks for one itself
        elif event == "ping":
            opened.connection.receive(b"PING\r\n")
        else:
            opened.connection.receive(b"PONG\r\n")
            pongs = min(pongs + 1, len(asked))
    confirmed = [(name, "confirmed") for name in asked[:pongs] if name]
    assert opened.outcomes == confirmed
    opened.connection.close(NatsError("over"))
    assert opened.outcomes == confirmed + [(name, "over") for name in asked[pongs:] if name]


def test_a_pong_that_nobody_asked_for_confirms_nothing_later() -> None:
    opened = Opened()
    opened.connection.receive(b"PONG\r\n")
    opened.connection.confirm(opened.outcome("a"))
    assert opened.outcomes == []


def test_the_end_of_a_connection_reaches_each_one_who_waits_exactly_once() -> None:
    opened = Opened()
    opened.connection.confirm(opened.outcome("a"))
    opened.connection.confirm(opened.outcome("b"))
    opened.connection.close(NatsError("over"))
    opened.connection.close(NatsError("over again"))
    assert opened.outcomes == [("a", "over"), ("b", "over")]


# --- complaints ---------------------------------------------------------------------------------------------------


def test_a_denial_is_told_before_the_confirmation_of_the_command_and_the_connection_goes_on() -> None:
    opened, heard = Opened(), list[bytes]()
    sid = opened.subscriptions.add("a", lambda message: heard.append(message.payload))
    told = list[int]()
    opened.connection.confirm(lambda _: told.append(len(opened.complaints)))
    opened.connection.receive(
        b"-ERR 'Permissions Violation for Subscription to \"b.c\"'\r\n"
        b"-ERR 'Permissions Violation for Publish to \"d\"'\r\nPONG\r\nMSG a %d 1\r\n1\r\n" % sid
    )
    assert [(complaint.kind, complaint.subject) for complaint in opened.complaints] == [
        (ComplaintKind.SUBSCRIBE_DENIED, "b.c"),
        (ComplaintKind.PUBLISH_DENIED, "d"),
    ]
    assert told == [2]
    assert heard == [b"1"]


def test_a_refused_command_that_the_server_does_not_name_is_told_and_the_connection_goes_on() -> None:
    opened = Opened()
    opened.connection.receive(b"-ERR 'maximum subscriptions exceeded'\r\nPING\r\n")
    assert [complaint.kind for complaint in opened.complaints] == [ComplaintKind.COMMAND_REFUSED]
    assert opened.connection.take_output() == PONG


@pytest.mark.parametrize("text", ["Stale Connection", "Maximum Payload Violation", "User Authentication Expired"])
def test_any_other_complaint_ends_the_connection_with_the_words_of_the_server(text: str) -> None:
    opened = Opened()
    with pytest.raises(NatsError, match=text):
        opened.connection.receive(f"-ERR '{text}'\r\n".encode())
    assert opened.complaints == []


def test_messages_before_the_complaint_that_ends_the_connection_are_delivered() -> None:
    opened, heard = Opened(), list[bytes]()
    sid = opened.subscriptions.add("a", lambda message: heard.append(message.payload))
    with pytest.raises(NatsError, match="Stale"):
        opened.connection.receive(b"MSG a %d 1\r\n1\r\n-ERR 'Stale Connection'\r\n" % sid)
    assert heard == [b"1"]


# --- liveness -----------------------------------------------------------------------------------------------------


def test_a_silent_server_is_asked_once_and_given_up_within_five_seconds() -> None:
    opened = Opened()
    for _ in range(PING_TICKS - 1):
        opened.connection.tick()
    assert opened.connection.take_output() == b""
    opened.connection.tick()
    assert opened.connection.take_output() == PING
    for _ in range(DEAD_TICKS - PING_TICKS - 1):
        opened.connection.tick()
    assert opened.connection.take_output() == b""
    with pytest.raises(NatsError, match="the server was silent for 4 seconds"):
        opened.connection.tick()
    assert DEAD_SECONDS <= 5


@pytest.mark.parametrize("sign", [b"PONG\r\n", b"PING\r\n", b"MSG a 1 100\r\n", b"M"])
def test_any_byte_of_the_server_proves_that_it_lives(sign: bytes) -> None:
    opened = Opened()
    for _ in range(DEAD_TICKS - 1):
        opened.connection.tick()
    opened.connection.receive(sign)
    for _ in range(DEAD_TICKS - 1):
        opened.connection.tick()
    with pytest.raises(NatsError):
        opened.connection.tick()


def test_the_pong_for_a_question_of_our_own_confirms_nothing_else() -> None:
    opened = Opened()
    for _ in range(PING_TICKS):
        opened.connection.tick()
    opened.connection.confirm(opened.outcome("a"))
    opened.connection.receive(b"PONG\r\n")
    assert opened.outcomes == []
    opened.connection.receive(b"PONG\r\n")
    assert opened.outcomes == [("a", "confirmed")]
