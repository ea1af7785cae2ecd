"""Receipts, without NATS: what becomes of a message is said by the test."""

import gc
import logging
from concurrent.futures import Future

import pytest
import trio

from fanline.base.counted_warnings import CountedWarnings
from fanline.errors import NotPublished
from fanline.publishing import receipt as receipts
from fanline.publishing.receipt import Receipt

FAILURE = NotPublished("the message on task:1 was not published: no reason")


@pytest.fixture(autouse=True)
def fresh_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "_warnings", CountedWarnings(1.0, "more messages that were not published"))


def handed_over() -> tuple[Receipt, Future[None]]:
    future: Future[None] = Future()
    future.set_running_or_notify_cancel()
    return Receipt("task:1", "i" * 16, future), future


def test_a_failure_that_nobody_asks_for_is_logged_however_early_the_receipt_is_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    receipt, future = handed_over()
    del receipt
    gc.collect()
    assert caplog.messages == []
    future.set_exception(FAILURE)
    assert caplog.messages == [str(FAILURE)]
    assert caplog.records[0].levelno == logging.WARNING


def test_a_burst_of_failures_is_one_warning_and_none_goes_uncounted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("fanline.base.counted_warnings.time.monotonic", lambda: now)

    def fail() -> None:
        receipt, future = handed_over()
        future.set_exception(FAILURE)
        del receipt

    for _ in range(5):
        fail()
    now += 2.0
    fail()
    fail()
    receipts.finish_warnings()
    last = "more messages that were not published: 1"
    assert caplog.messages == [str(FAILURE), f"{FAILURE} (4 more since the last warning)", last]


def test_a_failure_that_was_asked_for_is_raised_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    receipt, future = handed_over()
    with pytest.raises(TimeoutError, match="nothing is known of the message on task:1 after 0 seconds"):
        receipt.wait(0)
    assert not receipt.done
    future.set_exception(FAILURE)
    with pytest.raises(NotPublished, match="no reason"):
        receipt.wait()
    del receipt
    assert caplog.messages == []


def test_a_receipt_that_a_notebook_shows_says_what_is_known_and_does_not_count_as_asked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    receipt, future = handed_over()
    assert repr(receipt) == "<fanline.Receipt of task:1: on its way>"
    future.set_exception(FAILURE)
    assert repr(receipt) == f"<fanline.Receipt of task:1: {FAILURE}>"
    del receipt
    assert caplog.messages == [str(FAILURE)]
    published, future = handed_over()
    future.set_result(None)
    assert repr(published) == "<fanline.Receipt of task:1: published>"


async def test_a_wait_that_is_cancelled_leaves_the_message_to_those_who_still_wait() -> None:
    receipt, future = handed_over()
    with trio.move_on_after(0):
        await receipt
    assert not future.cancelled()
    future.set_result(None)
    await receipt
    await receipt
