"""The timeouts of plain code are deadlines, whatever happens until then."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from fanline.client.plain.subscription import PlainSubscription
from fanline.client.shells.plain_shell import PlainShell
from fanline.client.subscriptions.start import StartPosition

_WAIT = 0.4


class _Shell(PlainShell):
    """Something comes every 0.4 seconds of a clock of its own, and another thread takes it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = 100.0
        self.waited: list[float | None] = []
        monkeypatch.setattr(time, "monotonic", lambda: self.clock)

    def _run(self, work: Callable[..., Any], *arguments: Any, timeout: float | None) -> Any:
        self.waited.append(timeout)
        if timeout is not None and timeout < _WAIT:
            raise TimeoutError
        self.clock += _WAIT

    def taken(self) -> None:
        pass


def test_a_message_that_another_thread_takes_does_not_prolong_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = _Shell(monkeypatch)
    messages: PlainSubscription[Any] = PlainSubscription(
        shell, {"news:a": StartPosition()}, 10, gaps=False, timeout=None
    )
    messages._enter_once()
    with pytest.raises(TimeoutError, match=r"^nothing came within 1 seconds$"):
        messages.receive(timeout=1)
    assert shell.waited == pytest.approx([1.0, 0.6, 0.2])


def test_what_is_left_out_does_not_prolong_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = _Shell(monkeypatch)
    items = iter(["noise", None, "noise", None, "noise", None])
    messages: PlainSubscription[Any] = PlainSubscription(
        shell, {"task:1": StartPosition()}, 10, gaps=True, timeout=None
    )
    messages._enter_once()
    monkeypatch.setattr(messages, "_take", lambda: next(items))
    with pytest.raises(TimeoutError):
        messages._receive_first(lambda item: None, 1)
    assert shell.waited == pytest.approx([1.0, 0.6, 0.2])
