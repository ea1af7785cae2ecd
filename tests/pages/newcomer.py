"""A newcomer who follows a page: block after block, in the order of the page, in an empty directory.

Each step names the beginning of its block, so that a block that was added, moved or rewritten fails the test until it
says how to follow the page. What a page takes for granted, such as the reader's own `Makefile`, is given by the test.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fanline.protocol.serve_state import decode_state
from tests.pages.terminal import SECONDS, Terminal
from tests.support.paths import ROOT
from tests.support.programs.installs import Environment
from tests.test_docs import Block, blocks_of

_READY = re.compile(r"fanline ready: wss?://[^:/]+:(\d+)/ws ")
_SYSTEM = "/usr/local/bin:/usr/bin:/bin"


GO_ON = "go-on"
"""A file for which the reader's own jobs wait after their first step."""


class Newcomer:
    """Has a home and a working directory with nothing in them, and terminals."""

    def __init__(self, directory: Path, installed: Environment, *, activated: bool) -> None:
        self.here = directory / "here"
        self._home, self._logs = directory / "home", directory / "logs"
        for each in (self.here, self._home, self._logs):
            each.mkdir(parents=True)
        (self.here / ".venv").symlink_to(installed.scripts.parent)
        self._bin = installed.scripts
        self._path = f"{installed.scripts}:{_SYSTEM}" if activated else _SYSTEM
        self._terminals: dict[str, Terminal] = {}
        self.port: str | None = None

    def terminal(self, name: str) -> Terminal:
        if name not in self._terminals:
            self._terminals[name] = Terminal(self.here, self._logs / name, self._environ(), self.own)
        return self._terminals[name]

    @property
    def typed(self) -> float:
        return sum(terminal.typed for name, terminal in self._terminals.items() if name != "checks")

    def give(self, name: str, text: str) -> None:
        """A file that the page expects its reader to have."""
        path = self.here / name
        path.write_text(self.own(text))
        path.chmod(0o755)

    def serve(self, command: str = "fanline serve", terminal: str = "server") -> str:
        """Start the server and remember its port, which takes the place of 8080 on the page."""
        said = self.terminal(terminal).start(command, until="fanline ready: ")
        found = _READY.search(self.terminal(terminal).wait_for("/ws "))
        assert found, said
        self.port = found[1]
        return said

    def wait_subscribed(self, channel: str) -> None:
        """Wait until somebody hears what is published to a channel, as a person waits before the next command."""
        look = f"{self._bin}/fanline admin channels"
        self.wait_until(lambda: channel in self.terminal("checks").run(look, None), channel)

    def wait_control(self) -> None:
        """Wait for the control process, which the ready line does not wait for."""
        look = f"{self._bin}/fanline admin channels >&2 && echo answered"
        self.wait_until(lambda: "answered" in self.terminal("checks").run(look, None), "the control process")

    def wait_until(self, holds: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + SECONDS
        while not holds():
            assert time.monotonic() < end, f"waited for {what} in vain"
            time.sleep(0.02)

    def supervisor(self) -> int:
        """The process id of the server."""
        (state,) = (self._home / ".local" / "state" / "fanline").glob("serve-*.json")
        return decode_state(state.read_bytes()).pid

    def own(self, code: str) -> str:
        """Code of a page, with the port of this server: several tests may run on one machine."""
        return code if self.port is None else code.replace("8080", self.port)

    def leave(self) -> None:
        for terminal in reversed(self._terminals.values()):
            terminal.close()

    def _environ(self) -> dict[str, str]:
        """Of the machine, only what says nothing about Fanline or Python."""
        kept = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
        as_on_a_terminal = {"PYTHONUNBUFFERED": "1"}
        return kept | as_on_a_terminal | {"PATH": self._path, "HOME": str(self._home), "FANLINE_PORT": "0"}


def give_makefile(newcomer: Newcomer, target: str) -> None:
    """What the reader's own `make` does: two steps, the second when it may go on."""
    step = "\t@echo '[1/2] compile'; until [ -e go-on ]; do sleep 0.1; done; echo '[2/2] compile'"
    newcomer.give("Makefile", f"{target}:\n{step}\n")


class Page:
    """The blocks of a page, each to be taken once and in order."""

    def __init__(self, name: str, newcomer: Newcomer) -> None:
        self.newcomer = newcomer
        self._path = ROOT / name
        self._left = list(blocks_of(self._path))

    def take(self, begins: str) -> str:
        """The next block, as it stands there."""
        assert self._left, f"{self._path.name} has no more blocks, and should have one that begins with {begins!r}"
        block = self._left.pop(0)
        where = f"{self._path.name}:{block.line}"
        assert block.code.startswith(begins), f"{where} does not begin with {begins!r}:\n{block.code}"
        return block.code

    def lines(self, begins: str) -> list[str]:
        """The lines of the next block, which are typed into several terminals."""
        return [line for line in self.take(begins).splitlines() if line.strip()]

    def run(self, begins: str, *, exit_code: int = 0, terminal: str = "other") -> str:
        return self.newcomer.terminal(terminal).run(self.take(begins), exit_code)

    def start(self, begins: str, *, terminal: str, until: str) -> str:
        return self.newcomer.terminal(terminal).start(self.take(begins), until)

    def save(self, name: str, begins: str) -> None:
        self.newcomer.give(name, self.take(begins) + "\n")

    def serve(self, begins: str) -> str:
        return self.newcomer.serve(self.take(begins))

    def left_out(self, begins: str, reason: str) -> None:
        """Cannot be followed here."""
        assert reason
        self.take(begins)

    def elsewhere(self, begins: str, test: str) -> None:
        """Another test follows it."""
        assert (ROOT / "tests" / test).is_file(), test
        self.take(begins)

    def says(self, command: str) -> str:
        """A command that the page has in its text."""
        text = " ".join(self._path.read_text(encoding="utf-8").split())
        assert f"`{command}`" in text, f"{self._path.name} does not say `{command}`"
        return command

    @property
    def left(self) -> list[Block]:
        return self._left


@contextmanager
def reading(name: str, directory: Path, installed: Environment, *, activated: bool = True) -> Iterator[Page]:
    """Follow a page to its end: `activated` unless the page itself says how to get there."""
    newcomer = Newcomer(directory, installed, activated=activated)
    page = Page(name, newcomer)
    try:
        yield page
        assert page.left == [], "blocks that no step follows"
    finally:
        newcomer.leave()
