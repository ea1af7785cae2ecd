"""The command line: what is refused, how, and with which exit code. Nothing here needs a server."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fanline.cli.app import main
from fanline.cli.commands import COMMANDS
from fanline.cli.messages.publish import NotJson, parse_json
from fanline.cli.messages.subscribe import envelope_line, human_line
from fanline.client.message import Gap, Message


def _call(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    monkeypatch.setattr(sys, "argv", ["fanline", *args])
    with pytest.raises(SystemExit) as ended:
        main()
    code = ended.value.code or 0
    assert isinstance(code, int)
    return code


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["bogus"], "No such command 'bogus'."),
        (["tsaks"], "No such command 'tsaks'. Did you mean `fanline tasks`?"),
        (["--bogus"], "No such option: --bogus"),
        (["ask"], "Missing argument 'QUESTION'"),
        (["ask", "a", "b"], "unexpected extra argument"),
        (["ask", "a", "--option"], "'--option' requires an argument"),
        (["ask", "a", "--deadline", "soon"], "'soon' is not a time"),
        (["ask", "a", "--input", "--option", "b"], "give --option or --input, not both"),
        (["progress"], "give a percentage, a message or a stage"),
        (["progress", "150"], "'150' is not an amount"),
        (["progress", "-5"], "No such option: -5"),
        (["log", "--bogus"], "No such option: --bogus"),
        (["result"], "Missing argument 'VALUE'"),
        (["pub"], "Missing argument"),
        (["pub", "news:all"], "Missing argument"),
        (["pub", "news", "1"], "not a channel name: 'news'"),
        (["pub", "news:all", "hello"], "a string needs quotes"),
        (["pub", "news:all", '{"a":'], "not JSON"),
        (["pub", "news:all", "1", "--nats", "http://x"], "not a NATS URL"),
        (["pub", "news:all", "1", "--url", "ftp://x"], "not a WebSocket URL"),
        (["pub", "news:all", "1", "--url", "ws://x/ws", "--nats", "x"], "not both"),
        (["pub", "news:all", "-", "--deduplication-id", "a" * 16], "--deduplication-id is for one"),
        (["pub", "news:all", "1", "--deduplication-id", "short"], "16 to 128 printable characters"),
        (["pub", "news:all", "1", "--x", "task_id"], "not JSON"),
        (["pub", "news:all", "1", "--x", "[1]"], "a JSON object, as in"),
        (["pub", "news:all", "1", "--x", '{"taskId": 1}'], "'taskId' is no key"),
        (["pub", "news:all", "1", "--codec", "xml"], "xml"),
        (["run", "--id", "x", "--", "make"], "no such option: --id"),
        (["sub"], "Missing argument"),
        (["sub", "news:a*"], "not a channel name"),
        (["pub", "news:*", "1"], "not a channel name"),
        (["sub", "news:all", "--count", "0"], "--count"),
        (["sub", "news:all", "--last", "0"], "--last"),
        (["sub", "task:1", "--last", "1", "--from-start"], "one of --last"),
        (["sub", "task:1", "--epoch", "x"], "--epoch belongs to an --offset"),
        (["sub", "task:1", "task:2", "--offset", "1"], "--offset is for one channel"),
        (["demo", "--seconds", "soon"], "--seconds"),
        (["tail"], "Missing argument"),
        (["tail", "task:a b"], "not a channel name: 'task:a b'"),
        (["tail", "news:all"], "news:all is a channel, not a task: see `fanline sub news:all`"),
        (["tail", "x", "--lines", "1001"], "--lines"),
        (["tail", "x", "--url", "ftp://x"], "not a WebSocket URL"),
        (["tail", "x", "--approve", "--reject"], "one of --cancel, --approve"),
        (["tail", "x", "--cancel", "--input", "y"], "one of --cancel, --approve"),
        (["tasks", "--url", "ftp://x"], "not a WebSocket URL"),
    ],
)
def test_wrong_usage_is_one_line_on_stderr_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], args: list[str], said: str
) -> None:
    assert _call(monkeypatch, *args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("fanline: error: ")
    assert err.count("\n") == 1
    assert said in err


@pytest.mark.parametrize("args", [["sub", "news:all"], ["pub", "news:all", "1"], ["tail", "x"], ["tasks"]])
def test_no_server_is_exit_code_1_and_says_where_it_looked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, args: list[str]
) -> None:
    monkeypatch.setenv("FANLINE_STATE_DIR", str(tmp_path))
    assert _call(monkeypatch, *args) == 1
    err = capsys.readouterr().err
    assert err.startswith("fanline: error: no running `fanline serve` found")
    assert str(tmp_path) in err


@pytest.mark.parametrize(
    "args", [[], ["--help"], *([command, "--help"] for command in ("run", "tail", "tasks", "demo", "pub", "sub"))]
)
def test_help_is_on_stdout_and_teaches_by_example(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], args: list[str]
) -> None:
    assert _call(monkeypatch, *args) == 0
    assert "fanline " in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_table_exists_and_has_a_short_option_for_its_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    if command != "serve":  # which becomes another program
        assert _call(monkeypatch, command, "-h") == 0
        text = capsys.readouterr().out
        assert "-h, --help" in text
        assert "list[" not in text


def test_help_imports_no_command_and_nothing_that_reads_the_arguments_of_one() -> None:
    program = """
import sys
from fanline.cli.app import main
sys.argv = ["fanline", "--help"]
try:
    main()
finally:
    slow = {"typer", "pydantic", "trio", "rich", "msgspec", "asyncio", "fanline.client", "fanline.nats"}
    assert not slow & set(sys.modules), slow & set(sys.modules)
"""
    subprocess.run([sys.executable, "-P", "-c", program], check=True, capture_output=True, timeout=60)


def test_a_verb_of_a_script_imports_nothing_of_clients_and_servers_and_no_typer() -> None:
    """A script starts a process for each line that it reports."""
    program = """
import sys
from fanline.cli.app import main
sys.argv = ["fanline", "progress", "40"]
try:
    main()
except SystemExit as ended:
    assert ended.code == 3, ended.code
ours = {"fanline.client", "fanline.nats", "fanline.producer"}
slow = ({"typer", "pydantic", "trio", "rich", "msgspec", "asyncio"} | ours) & set(sys.modules)
assert not slow, slow
"""
    environ = {name: value for name, value in os.environ.items() if name != "FANLINE_SOCKET"}
    subprocess.run([sys.executable, "-P", "-c", program], check=True, capture_output=True, timeout=60, env=environ)


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["ask", "--help"]])
def test_a_reader_that_has_gone_is_no_error_and_a_full_disk_is_one_line(args: list[str]) -> None:
    command = [sys.executable, "-P", "-m", "fanline", *args]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        gone = subprocess.run(command, check=False, stdout=writing, stderr=subprocess.PIPE, timeout=60)
    finally:
        os.close(writing)
    assert (gone.returncode, gone.stderr) == (0, b"")
    with Path("/dev/full").open("wb") as full:
        refused = subprocess.run(command, check=False, stdout=full, stderr=subprocess.PIPE, timeout=60)
    assert (refused.returncode, refused.stderr.count(b"\n")) == (1, 1)
    assert b"No space left on device" in refused.stderr


@pytest.mark.parametrize(
    ("args", "place"),
    [
        (["bogus"], "fanline --help"),
        (["pub"], "fanline pub --help"),
        (["sub", "news:a b"], "fanline sub --help"),
        (["apikey", "create"], "fanline apikey create --help"),
        (["pub", "news:all", "1", "--event"], "fanline pub --help"),
        (["ask"], "fanline ask --help"),
    ],
)
def test_an_error_names_the_help_of_its_own_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], args: list[str], place: str
) -> None:
    assert _call(monkeypatch, *args) == 2
    assert capsys.readouterr().err.endswith(f"(see `{place}`)\n")


def test_a_group_of_commands_without_one_shows_its_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _call(monkeypatch, "apikey") == 2
    assert "Commands:\n  create" in capsys.readouterr().out


def test_the_help_begins_with_the_main_job(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _call(monkeypatch, "--help") == 0
    commands = capsys.readouterr().out.partition("Commands:")[2]
    assert [line.split()[0] for line in commands.splitlines() if line.startswith("  ")][:3] == [
        "run",
        "tail",
        "tasks",
    ]


@pytest.mark.parametrize("text", ["null", "0", '""', "[]", "false", ' {"a": 1}\n'])
def test_every_json_value_can_be_published_even_an_empty_one(text: str) -> None:
    parse_json(text)


@pytest.mark.parametrize("text", ["", "'a'", "NaN", "[1,]", "1 2", "99999999999999999999", "[" * 100 + "]" * 100])
def test_a_text_that_is_not_json_or_that_no_message_could_hold_is_refused(text: str) -> None:
    with pytest.raises(NotJson):
        parse_json(text)


def test_a_message_is_one_line_of_channel_event_and_data() -> None:
    assert human_line(Message("task:1", {"percent": 4}, "task_progress")) == 'task:1  task_progress  {"percent":4}'
    assert human_line(Message("news:a", "grüezi")) == 'news:a  -  "grüezi"'


def test_a_json_line_is_the_envelope_that_was_received() -> None:
    message = Message("news:a", {"x": None}, "e", "i", "u", 5, x={"a": 1})
    shown = '{"v":1,"t":"pub","c":"news:a","i":"i","e":"e","d":{"x":null},"u":"u","ts":5,"x":{"a":1}}'
    assert envelope_line(message) == shown


def test_a_json_line_has_what_is_needed_to_resume_after_it_and_a_gap_is_one_too() -> None:
    message = Message("task:1", 1, offset=7, previous=5, epoch="x")
    assert envelope_line(message) == '{"v":1,"t":"pub","c":"task:1","o":7,"p":5,"ep":"x","d":1}'
    gap = envelope_line(Gap("task:1", "expired", 3, 9, "x"))
    assert gap == '{"v":1,"t":"gap","c":"task:1","ep":"x","d":{"from":3,"to":9,"reason":"expired"}}'
    slow = Gap("cursor:1", "slow", count=4)
    assert envelope_line(slow) == '{"v":1,"t":"gap","c":"cursor:1","d":{"reason":"slow","count":4}}'


@pytest.mark.parametrize(
    ("gap", "said"),
    [
        (Gap("task:1", "expired", 3, 9, "x"), "the messages from 3 to 9 of task:1 are missing (expired)"),
        (Gap("cursor:1", "slow", count=4), "4 messages of cursor:1 are missing (slow)"),
        (Gap("task:1", "fault", epoch="x"), "messages of task:1 may be late (fault)"),
        (
            Gap("task:1", "epoch", last=0, epoch="y"),
            "task:1 was recreated: what it held before is gone, and offsets start again",
        ),
    ],
)
def test_a_gap_is_a_sentence_for_a_person(gap: Gap, said: str) -> None:
    assert str(gap) == said
