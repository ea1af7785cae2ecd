"""What the loop leaves behind when its user fails."""

from pathlib import Path

import pytest

from fanline.nats.loop import NatsLoop
from fanline.protocol.nats.options import NatsOptions
from fanline.protocol.nats.replies import Complaint

pytestmark = pytest.mark.process


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class FailingUser:
    def connected(self, now: float) -> None: ...

    def lost(self, why: str | None, now: float) -> None: ...

    def denied(self, complaint: Complaint) -> None: ...

    def step(self, now: float) -> float:
        raise ZeroDivisionError


def test_a_fault_of_its_user_ends_the_loop_and_leaves_no_socket_open() -> None:
    before = _open_files()
    loop = NatsLoop(lambda: NatsOptions(("nats://127.0.0.1:1",)))
    with pytest.raises(ZeroDivisionError):
        loop.run(FailingUser())
    assert _open_files() == before
