"""What decides for a client holds no I/O, no event loop and no clock: every shell can use it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.test_layering import NOT_IN_PROTOCOL, imports

CLIENT = ROOT / "fanline" / "client"
FORBIDDEN = NOT_IN_PROTOCOL - {"random"} | {"trio_websocket", "websockets"}  # random: the jitter of asking again
BELOW = {"fanline.base.backoff", "fanline.client.control", "fanline.client.message", "fanline.errors"}
"""What both rooms use of the SDK; besides, they see only `fanline.protocol`."""
SEES = {
    "subscriptions": BELOW,
    "machine": {*BELOW, "fanline.client.machine", "fanline.client.subscriptions", "fanline.base.plain"},
}


def modules(file: Path) -> Iterator[str]:
    for _, module in imports(file.read_text(encoding="utf-8")):
        yield module


@pytest.mark.parametrize("room", SEES)
def test_a_room_sees_only_itself_what_is_below_it_and_the_protocol(room: str) -> None:
    files = sorted((CLIENT / room).glob("*.py"))
    assert len(files) > 5
    seen = {module for file in files for module in modules(file) if module.startswith("fanline")}
    allowed = (f"fanline.client.{room}", "fanline.protocol.", *SEES[room])
    assert [module for module in seen if not module.startswith(allowed)] == []


@pytest.mark.parametrize("room", SEES)
def test_neither_a_room_nor_what_is_below_it_knows_a_loop_a_socket_or_a_clock(room: str) -> None:
    below = [(ROOT / module.replace(".", "/")).with_suffix(".py") for module in {*BELOW, "fanline.base.plain"}]
    files = [*(CLIENT / room).glob("*.py"), *below]
    packages = {module.partition(".")[0] for file in files for module in modules(file)}
    assert packages & FORBIDDEN == set()
