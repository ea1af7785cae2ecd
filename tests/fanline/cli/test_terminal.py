"""Whatever comes from outside, in every field and to every command, a terminal only displays it."""

import ast
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
import trio

from fanline.cli.terminal import complain, note, put, put_json, put_lines, styled
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.tasks.events import TaskEvent
from tests.fanline.cli.pseudo_terminal import Terminal, terminal
from tests.fanline.client.durable_peer import durable_peer
from tests.fanline.client.peer import Script, Talk, refusing_peer, running_peer
from tests.support.paths import ROOT

CLI = ROOT / "fanline" / "cli"

CORPUS = {
    "c0": ("<\x00\x01\x02\x03\x04\x05\x06\x07\x08\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a>", None),
    "c1": ("<" + "".join(map(chr, (*range(0x7F, 0x85), *range(0x86, 0xA0)))) + ">", None),
    "lines": ("<a\nb\rc\x0bd\x0ce\x1cf\x85g\u2028h\u2029i>", None),
    "bidi": ("<\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069>", None),
    "colours": ("<\x1b[7;35mred\x1b[99A\x1b[2J>", "<red>"),
    "osc 8": ("<\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\>", "<link>"),
    "osc 52": ("<\x1b]52;c;ZXZpbA==\x07clip\x1b]52;c;ZXZpbA==\x1b\\>", "<clip>"),
    "osc 52 in c1": ("<\x9d52;c;ZXZpbA==\x9c>", "<\\x9d52;c;ZXZpbA==\\x9c>"),
    "unfinished": ("<\x1b]52;c;ZXZpbA==>", "<\\x1b]52;c;ZXZpbA==>"),
    "nested": ("<\x1b\x1b[0m]52;c;ZXZpbA==\x07>", "<\\x1b]52;c;ZXZpbA==\\x07>"),
    "markup": ("<[link=http://evil.example]x[/link][red]y>", "<[link=http://evil.example]x[/link][red]y>"),
}
"""Name -> what is sent, and what is shown of it; None: each control character as Python writes it."""
GROUPS = {
    "characters": ("c0", "c1", "lines", "bidi"),
    "commands": ("colours", "osc 8", "markup"),
    "clipboard": ("osc 52", "osc 52 in c1", "nested", "unfinished"),
}
"""What goes to a command in one text: each is a process, and a name in a message has 128 characters at most."""
_SHOWN = {name: ascii(text)[1:-1] if shown is None else shown for name, (text, shown) in CORPUS.items()}
HOSTILE = {group: "".join(CORPUS[name][0] for name in names) for group, names in GROUPS.items()}
SHOWN = {group: "".join(_SHOWN[name] for name in names) for group, names in GROUPS.items()}
IN_AN_ERROR = {group: shown.replace(_SHOWN["lines"], "<a b c d e f g h i>") for group, shown in SHOWN.items()}
"""An error is one line in any case, so what separates lines is a blank there."""

_OURS = re.compile(r"\x1b\[[0-9;]*m|\x1b\[[0-9]*[AK]|\x1b\[\?25[lh]|\r|\n")
"""What Rich itself writes: colours, up, erase the line, the cursor."""

each_text = pytest.mark.parametrize("name", GROUPS)


def shown_lines(shell: Terminal) -> list[str]:
    """What a terminal was sent, byte for byte, as lines; the kernel makes CR LF of each line feed."""
    *lines, rest = shell.received.decode().split("\r\n")
    assert rest == ""
    return lines


def assert_only_displays(shell: Terminal, name: str) -> None:
    """For a live display, whose frames depend on the time: what is not Rich's own is printable."""
    plain = _OURS.sub("", shell.received.decode())
    assert [char for char in plain if not char.isprintable()] == []
    assert SHOWN[name] in plain
    for sequence in re.findall(r"\x1b\[7;35m|\x1b\[99A|\x1b\[2J", HOSTILE[name]):
        assert sequence.encode() not in shell.received


async def run(url: str, *args: str) -> Terminal:
    """A command on a terminal, to its end."""
    async with terminal(*args, "--url", url) as shell:
        await shell.read_to_end()
    return shell


def answering(kind: MessageType, data: Callable[[Envelope], Any]) -> Script:
    """Every command is answered with a message of this type."""

    async def script(talk: Talk) -> None:
        await talk.welcome()
        while True:
            command = await talk.receive()
            await talk.send(Envelope(kind, id=command.id, channel=command.channel, data=data(command)))

    return script


def publishing(*messages: Envelope, offset: int | None = None) -> Script:
    """A `sub` is followed by these messages."""

    async def script(talk: Talk) -> None:
        await talk.welcome()
        command = await talk.receive()
        data = {"recovered": True, "count": 1} if offset is not None else None
        answer = Envelope(MessageType.OK, id=command.id, channel=command.channel, offset=offset, epoch="e", data=data)
        await talk.send(answer if offset is not None else Envelope(MessageType.OK, id=command.id, channel="news:all"))
        for message in messages:
            await talk.send(message)
        await talk.until_closed()

    return script


# --- channels -------------------------------------------------------------------------------------------------------


@each_text
async def test_sub_shows_event_and_data(name: str) -> None:
    text = HOSTILE[name]
    message = Envelope(MessageType.PUB, channel="news:all", event=text, data={text: [text]})
    with trio.fail_after(30):
        async with running_peer(publishing(message)) as url:
            shell = await run(url, "sub", "news:all", "--count", "1")
    data = msgspec.json.encode({text: [text]}).decode()  # which makes escapes of C0 itself
    visible = re.sub(r"[^\x20-\x7e]", lambda found: ascii(found[0])[1:-1], data)
    listening = f"fanline: listening to news:all on {url}"
    assert shown_lines(shell) == [listening, f"news:all  {SHOWN[name]}  {visible}"]


@each_text
async def test_sub_json_keeps_every_value_in_printable_characters(name: str) -> None:
    text = HOSTILE[name]
    message = Envelope(MessageType.PUB, channel="news:all", id=text, event=text, data={text: text}, sender=text)
    with trio.fail_after(30):
        async with running_peer(publishing(message)) as url:
            shell = await run(url, "sub", "news:all", "--count", "1", "--json")
    _, line = shown_lines(shell)
    assert line.isascii()
    assert line.isprintable()
    expected = {"v": 1, "t": "pub", "c": "news:all", "i": text, "e": text, "d": {text: text}, "u": text}
    assert msgspec.json.decode(line) == expected


@each_text
async def test_the_reason_of_a_gap_is_cleaned(name: str) -> None:
    gap = Envelope(MessageType.GAP, channel="news:all", data={"reason": HOSTILE[name], "count": 3})
    last = Envelope(MessageType.PUB, channel="news:all", data=1)
    with trio.fail_after(30):
        async with running_peer(publishing(gap, last)) as url:
            shell = await run(url, "sub", "news:all", "--count", "1")
    assert f"fanline: 3 messages of news:all are missing ({SHOWN[name]})" in shown_lines(shell)


@each_text
@pytest.mark.parametrize("args", [("pub", "news:all", "1"), ("sub", "news:all")], ids=["pub", "sub"])
async def test_a_refusal_of_the_server_is_cleaned(name: str, args: tuple[str, ...]) -> None:
    refusal = {"code": HOSTILE[name], "message": HOSTILE[name]}
    with trio.fail_after(30):
        async with running_peer(answering(MessageType.ERR, lambda _: refusal)) as url:
            shell = await run(url, *args)
    said = IN_AN_ERROR[name]
    assert shown_lines(shell)[-1] == f"fanline: error: {said} ({said})"


@each_text
async def test_what_another_server_says_to_the_handshake_is_cleaned(name: str) -> None:
    with trio.fail_after(30):
        async with refusing_peer(404, HOSTILE[name].encode()) as url:
            shell = await run(url, "sub", "news:all")
    (line,) = shown_lines(shell)
    assert line == f"fanline: error: {url} refused with HTTP 404 {IN_AN_ERROR[name]}"


@each_text
async def test_what_is_typed_on_the_command_line_comes_back_cleaned(name: str) -> None:
    typed = HOSTILE[name].replace("\x00", "")  # no argument can hold it
    with trio.fail_after(30):
        async with terminal("sub", typed) as shell:
            await shell.read_to_end()
    (line,) = shown_lines(shell)
    assert line.startswith("fanline: error: ")
    assert line.isprintable()


# --- tasks ----------------------------------------------------------------------------------------------------------


def table_of(text: str) -> dict[str, Any]:
    row = {"id": text, "state": "running", "title": text, "stage": text, "percent": 5}
    return {"tasks": [row], "total": 1}


@each_text
async def test_the_table_of_tasks_is_cleaned(name: str) -> None:
    message = Envelope(MessageType.PUB, channel="tasks:running", offset=5, previous=4, data=table_of(HOSTILE[name]))
    with trio.fail_after(60):
        async with running_peer(publishing(message, offset=5)) as url:
            once = await run(url, "tasks", "--once")
            as_json = await run(url, "tasks", "--json")
    assert_only_displays(once, name)
    (line,) = shown_lines(as_json)
    assert line.isascii()
    assert line.isprintable()
    assert msgspec.json.decode(line) == table_of(HOSTILE[name])


@each_text
async def test_the_live_table_of_tasks_is_cleaned(name: str) -> None:
    message = Envelope(MessageType.PUB, channel="tasks:running", offset=5, previous=4, data=table_of(HOSTILE[name]))
    with trio.fail_after(60):
        async with running_peer(publishing(message, offset=5)) as url, terminal("tasks", "--url", url) as shell:
            await shell.wait_shown("5 %")
            os.write(shell.master, b"\x03")
            await shell.read_to_end()
    assert_only_displays(shell, name)


def events_of(text: str) -> Iterator[tuple[TaskEvent, dict[str, Any]]]:
    """A task's events with the text in every field that is shown."""
    yield TaskEvent.STARTED, {"title": text}
    yield TaskEvent.PROGRESS, {"percent": 5, "stage": text, "message": text}
    yield TaskEvent.OUTPUT, {"lines": [text]}
    yield TaskEvent.OUTPUT, {"lines": [text], "stream": "stderr"}
    yield TaskEvent.ASKED, {"ask": "a", "text": text, "options": [text]}
    yield TaskEvent.ANSWERED, {"ask": "a", "by": "ann", "value": {text: text}}
    yield TaskEvent.CANCEL_REQUESTED, {"by": "ann", "deadline": 30}
    yield TaskEvent.CANCEL_REFUSED, {"message": text}
    yield TaskEvent.FAILED, {"error": text}


@each_text
@pytest.mark.parametrize("joins_late", [False, True], ids=["live", "late"])
async def test_tail_shows_every_field_of_a_task_cleaned(name: str, joins_late: bool) -> None:
    with trio.fail_after(60):
        async with durable_peer() as peer:
            events = list(events_of(HOSTILE[name]))
            for event, data in events if joins_late else events[:1]:
                peer.append(data, event)
            async with terminal("tail", "1", "--url", peer.url) as shell:
                if not joins_late:
                    await shell.wait_shown("task:1")
                    for event, data in events[1:]:
                        await peer.publish(data, event)
                await shell.read_to_end()
    assert_only_displays(shell, name)


@each_text
async def test_names_in_a_snapshot_of_another_server_are_cleaned(name: str) -> None:
    text = HOSTILE[name]
    ask = {"id": text, "text": text, "options": [text]}
    cancelled = {"state": "cancelled", "attempt": 1, "title": text, "by": text, "ask": ask, "error": text}
    waiting = {"state": "waiting_input", "attempt": 1, "title": text, "ask": ask, "stop": {"by": text, "deadline": 1}}
    for snapshot in (cancelled, waiting):
        data = {"snapshot": snapshot, "output": [{"lines": [text], "first": 0, "attempt": 1}]}
        message = Envelope(MessageType.PUB, channel="task:1", offset=5, event="task_snapshot", data=data)
        with trio.fail_after(60):
            async with running_peer(publishing(message, offset=5)) as url, terminal("tail", "1", "--url", url) as shell:
                if snapshot is waiting:
                    await shell.wait_shown("it asks")
                    os.write(shell.master, b"\x03")
                await shell.read_to_end()
        assert_only_displays(shell, name)


@each_text
async def test_tail_json_keeps_every_value_in_printable_characters(name: str) -> None:
    with trio.fail_after(30):
        async with durable_peer() as peer:
            for event, data in events_of(HOSTILE[name]):
                peer.append(data, event)
            shell = await run(peer.url, "tail", "1", "--json")
    (line,) = shown_lines(shell)
    assert line.isascii()
    assert line.isprintable()
    shown = msgspec.json.decode(line)["d"]
    assert (shown["snapshot"]["error"], shown["snapshot"]["title"]) == (HOSTILE[name], HOSTILE[name])
    assert shown["output"][0]["lines"] == [HOSTILE[name]]


@each_text
@pytest.mark.parametrize("option", ["--cancel", "--approve", "--input=x"])
async def test_a_producers_refusal_is_cleaned(name: str, option: str) -> None:
    with trio.fail_after(30):
        async with durable_peer() as peer:
            peer.append({"ask": "a", "text": "?", "kind": "input" if "input" in option else "approve"}, TaskEvent.ASKED)
            peer.answers.append(Envelope(MessageType.ERR, data={"code": "refused", "message": HOSTILE[name]}))
            shell = await run(peer.url, "tail", "1", option)
    assert f"fanline: error: {IN_AN_ERROR[name]} (refused)" in _OURS.sub("\n", shell.received.decode()).split("\n")


# --- by construction ------------------------------------------------------------------------------------------------

PRINTING = {"print", "echo", "secho", "Text"}
"""Names by which a module could print past terminal.py. A console prints what `styled` has made."""


def test_no_other_module_of_the_command_line_prints() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sorted(CLI.rglob("*.py"))
        if path != CLI / "terminal.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and _prints(node)
    ]
    assert found == []


def _prints(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name == "print" and isinstance(call.func, ast.Attribute):
        return isinstance(call.args[0], ast.JoinedStr | ast.Constant)  # on a console
    return name in PRINTING or (name == "write" and "sys.std" in ast.unparse(call.func))


@each_text
def test_every_way_to_the_terminal_cleans(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = HOSTILE[name]
    put(text)
    put_lines([text, text])
    put_json(msgspec.json.encode(text).decode())
    note(text)
    complain(text)
    out, err = capsys.readouterr()
    assert out.split("\n")[:3] == [SHOWN[name]] * 3
    assert msgspec.json.decode(out.split("\n")[3]) == text
    assert out.split("\n")[3].isprintable()
    assert err.split("\n") == [f"fanline: {SHOWN[name]}", f"fanline: error: {IN_AN_ERROR[name]}", ""]
    assert styled(text).plain == SHOWN[name]
