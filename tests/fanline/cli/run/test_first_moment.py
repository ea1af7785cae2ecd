"""`fanline run` in the moment between the task's start and the command's."""

import os
import signal
from collections.abc import Iterator

import msgspec
import pytest
import trio

from fanline.cli.run.command_process import CommandProcess, start_command
from fanline.cli.run.execution import RunOptions, execute
from fanline.cli.run.job import ViewerRights
from fanline.cli.run.progress_lines import progress_in
from fanline.producer.run.producer import Producer
from fanline.protocol.tasks.events import TaskEvent

pytestmark = pytest.mark.process


@pytest.fixture
def moment(monkeypatch: pytest.MonkeyPatch) -> Iterator["FirstMoment"]:
    ours, theirs = os.pipe()
    with os.fdopen(ours) as stdin, os.fdopen(theirs, "w"):
        monkeypatch.setattr("sys.stdin", stdin)  # one that stays open
        yield FirstMoment(monkeypatch)


class FirstMoment:
    """A viewer who has seen that the task has started, and calls before the command has."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.producer: Producer
        self.reply: bytes = b""
        self._verb = ""
        self._data: dict[str, str] = {}
        self._start = start_command
        monkeypatch.setattr("fanline.producer.task.export", self._export)
        monkeypatch.setattr("fanline.cli.run.execution.start_command", self._called_first)
        monkeypatch.setattr("fanline.cli.run.execution._print_warnings", lambda level: None)  # it is for a process

    def _export(self, producer: Producer) -> None:
        self.producer = producer
        producer.settle()

    async def _called_first(self, argv: list[str], environ: dict[str, str], *, tty: bool) -> CommandProcess:
        self.producer.handle_call(self._verb, self._data, "ann", self._take_reply)
        return await self._start(argv, environ, tty=tty)

    def _take_reply(self, reply: bytes) -> None:
        self.reply = reply

    async def run(self, script: str, verb: str, **data: str) -> int:
        """The exit code of a command, after a call in the first moment."""
        self._verb, self._data = verb, data
        argv, rights = ["sh", "-c", script], ViewerRights(type=True, stop=True)
        with trio.fail_after(30):
            return await execute(RunOptions(argv, "job", "job", 10, 10, None, rights, False, progress_in, {}))

    @property
    def events(self) -> list[str]:
        return [each.event for each in self.producer.take(1e300, 100)]


async def test_input_in_the_first_moment_is_typed(moment: FirstMoment) -> None:
    assert await moment.run('read a && test "$a" = hello', "input", value="hello") == 0
    assert msgspec.json.decode(moment.reply)["t"] == "ok"


async def test_a_cancel_in_the_first_moment_stops_the_command_as_later(moment: FirstMoment) -> None:
    assert await moment.run("sleep 60", "cancel") == 128 + signal.SIGTERM
    assert msgspec.json.decode(moment.reply)["t"] == "ok"
    assert moment.events[-1] == TaskEvent.CANCELLED


async def test_a_verb_that_a_command_does_not_know_is_refused_in_the_first_moment_too(moment: FirstMoment) -> None:
    assert await moment.run("sleep 0.1", "paint") == 0
    assert msgspec.json.decode(moment.reply)["d"]["message"].startswith("a command supports cancel, input")
