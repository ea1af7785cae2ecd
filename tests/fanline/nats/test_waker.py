"""The waker of the SDK's loop, interrupted where another thread may come in between."""

import socket
from collections.abc import Callable

import pytest

from fanline.nats.waker import Waker


def _nothing() -> None:
    pass


class PlayedPipe:
    """Both ends of a socket pair; the hooks run just before the kernel is asked."""

    def __init__(self) -> None:
        self.waiting = 0
        self.before_send: Callable[[], None] = _nothing
        self.before_recv: Callable[[], None] = _nothing

    def setblocking(self, flag: bool) -> None:
        assert not flag

    def send(self, data: bytes) -> int:
        hook, self.before_send = self.before_send, _nothing
        hook()
        self.waiting += len(data)
        return len(data)

    def recv(self, size: int) -> bytes:
        hook, self.before_recv = self.before_recv, _nothing
        hook()
        if not self.waiting:
            raise BlockingIOError
        taken = min(size, self.waiting)
        self.waiting -= taken
        return bytes(taken)


def _turn(waker: Waker) -> None:
    """What the loop does after each wait."""
    waker.clear()
    waker.run_calls()


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> PlayedPipe:
    pipe = PlayedPipe()
    monkeypatch.setattr(socket, "socketpair", lambda: (pipe, pipe))
    return pipe


def test_a_call_wakes_the_loop_and_is_made_once(pipe: PlayedPipe) -> None:
    waker, made = Waker(), list[str]()
    waker.call_soon(made.append, "a")
    waker.call_soon(made.append, "b")
    assert pipe.waiting == 1
    _turn(waker)
    _turn(waker)
    assert (made, pipe.waiting) == (["a", "b"], 0)


def test_a_call_whose_wake_up_comes_after_it_was_made_leaves_nothing_that_wakes_the_loop_for_ever(
    pipe: PlayedPipe,
) -> None:
    # The loop woke by itself between the caller's decision to wake it and the byte: it would spin from here on.
    waker, made = Waker(), list[str]()
    pipe.before_send = lambda: _turn(waker)
    waker.call_soon(made.append, "a")
    _turn(waker)
    assert (made, pipe.waiting) == (["a"], 0)


def test_no_wake_up_is_lost_to_a_call_that_comes_while_the_loop_takes_the_last_one(pipe: PlayedPipe) -> None:
    # Its byte would be taken with the last one, and the next caller would believe that the loop is being woken.
    waker, made = Waker(), list[str]()
    waker.call_soon(made.append, "a")
    pipe.before_recv = lambda: waker.call_soon(made.append, "b")
    _turn(waker)
    waker.call_soon(made.append, "c")
    assert pipe.waiting
    _turn(waker)
    assert (made, pipe.waiting) == (["a", "b", "c"], 0)


def test_a_wake_up_that_brings_no_call_is_kept_for_the_next_wait_while_calls_are_made(pipe: PlayedPipe) -> None:
    # A name has been looked up: the loop looks for that after its wait, not after its calls.
    waker = Waker()
    waker.clear()
    waker.call_soon(waker.wake)
    waker.clear()
    waker.run_calls()
    assert pipe.waiting
