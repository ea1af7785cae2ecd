from fanline.loadtest.ledger import Ledger


def test_everything_after_the_answered_subscription_must_come() -> None:
    ledger = Ledger({"p": 3})
    assert ledger.missing({"p": 3}) == 0
    assert ledger.missing({"p": 5}) == 2
    assert ledger.note("p", 4, local=True) == 1


def test_a_message_that_was_under_way_during_the_subscription_may_come_or_not() -> None:
    ledger = Ledger({"p": 3})
    assert ledger.note("p", 2, local=True) == 0
    assert ledger.note("p", 3, local=True) == 0


def test_a_publisher_of_another_process_counts_from_its_first_message_seen() -> None:
    ledger = Ledger({})
    assert ledger.note("far", 70, local=False) == 0
    assert ledger.note("far", 73, local=False) == 2


def test_a_new_publisher_of_this_process_must_be_heard_from_its_first_message() -> None:
    assert Ledger({}).note("new", 2, local=True) == 2


def test_a_message_that_comes_twice_or_late_is_reported_and_changes_nothing() -> None:
    ledger = Ledger({})
    assert [ledger.note("p", sequence, local=True) for sequence in (0, 1, 1, 0, 2)] == [0, 0, -1, -1, 0]
    assert ledger.missing({"p": 3}) == 0
