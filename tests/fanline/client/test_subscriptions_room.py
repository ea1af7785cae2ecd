"""The room of the state machine holds no I/O, no event loop and no clock: every shell of the client can use it."""

from collections.abc import Iterator
from pathlib import Path

from tests.support.paths import ROOT
from tests.test_layering import NOT_IN_PROTOCOL, imports

ROOM = ROOT / "fanline" / "client" / "subscriptions"
FORBIDDEN = NOT_IN_PROTOCOL - {"random"}  # the jitter of asking again
BELOW = {"fanline.backoff", "fanline.client.control", "fanline.client.message", "fanline.errors"}
"""What it uses of the SDK; besides, it sees only `fanline.protocol`."""


def modules(file: Path) -> Iterator[str]:
    for _, module in imports(file.read_text(encoding="utf-8")):
        yield module


def test_the_room_sees_only_itself_what_is_below_it_and_the_protocol() -> None:
    files = sorted(ROOM.glob("*.py"))
    assert len(files) > 5
    seen = {module for file in files for module in modules(file) if module.startswith("fanline")}
    allowed = ("fanline.client.subscriptions.", "fanline.protocol.")
    assert {module for module in seen if not module.startswith(allowed)} == BELOW


def test_neither_the_room_nor_what_is_below_it_knows_a_loop_a_socket_or_a_clock() -> None:
    below = [(ROOT / module.replace(".", "/")).with_suffix(".py") for module in BELOW]
    packages = {module.partition(".")[0] for file in [*ROOM.glob("*.py"), *below] for module in modules(file)}
    assert packages & FORBIDDEN == set()
