"""`fanline progress`, `log`, `ask` and `result`: how a script under `fanline run` reports on its task.

A script starts a process for each call, perhaps a hundred a minute. This module therefore imports only the standard
library and modules of ours that do the same; in particular not Typer, which imports pydantic. A test checks that.
"""

import json
import os
import re
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

from fanline.base.task_socket import TASK_VARIABLE, NoTask, RequestRefused, TaskSocket
from fanline.cli.terminal import complain, note, put, put_lines
from fanline.cli.verbs.usage import USAGE
from fanline.cli.verbs.words import Words, WrongUsage, read_words

REJECTED = 1
WRONG_USAGE = 2
NO_TASK = 3
EXPIRED = 4
_CHUNK_BYTES = 1 << 16
_MAX_TEXT = 1 << 18  # characters of one request; each may take several bytes
_MOST_AMOUNT = 1e300
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}

Act = Callable[[TaskSocket], int]
"""Carries out a verb on the task's socket and returns the exit code."""


def call(verb: str, arguments: list[str]) -> int:
    """The exit code of `fanline VERB ARGUMENTS`."""
    try:
        words = read_words(USAGE[verb], arguments)
        if words.help:
            put_lines(USAGE[verb].splitlines())
            return 0
        act = _VERBS[verb](words)
    except WrongUsage as error:
        complain(f"{error} (see `fanline {verb} --help`)")
        return WRONG_USAGE
    return _carry_out(act)


# --- what each does -----------------------------------------------------------------------------------------------


def _progress(words: Words) -> Act:
    amount, text = words.positional("PERCENT or DONE/TOTAL", "MESSAGE", required=0)
    message = words.option("--message")
    if text is not None and message is not None:
        raise WrongUsage("give the message once")
    numbers = {} if amount is None else _numbers(amount)
    said = {**numbers, "message": text or message, "stage": words.option("--stage")}
    if all(value is None for value in said.values()):
        raise WrongUsage("give a percentage, a message or a stage")
    return lambda task: _report(task, "progress", **said)


def _log(words: Words) -> Act:
    stream = "stderr" if words.flag("--stderr") else "stdout"
    if not words.rest:
        return lambda task: _report_stdin(task, stream)
    return lambda task: _report(task, "log", text=" ".join(words.rest)[:_MAX_TEXT], stream=stream)


def _ask(words: Words) -> Act:
    (question,) = words.positional("QUESTION")
    options, free, deadline = words.options("--option"), words.flag("--input"), words.option("--deadline")
    if free and options:
        raise WrongUsage("give --option or --input, not both")
    fields = {
        "text": question,
        "kind": "input" if free else "approve",
        "options": options or None,
        "deadline": None if deadline is None else _seconds(deadline),
    }
    as_json = words.flag("--json")
    return lambda task: _ask_and_print(task, fields, as_json=as_json)


def _result(words: Words) -> Act:
    (value,) = words.positional("VALUE")
    assert value is not None
    text = sys.stdin.buffer.read().decode("utf-8", "replace").strip() if value == "-" else value
    return lambda task: _report(task, "result", value=_json_or_text(text))


_VERBS: dict[str, Callable[[Words], Act]] = {"progress": _progress, "log": _log, "ask": _ask, "result": _result}


# --- how they end -------------------------------------------------------------------------------------------------


def _carry_out(act: Act) -> int:
    try:
        with closing(TaskSocket()) as task:
            return act(task)
    except NoTask as error:
        complain(str(error))
        return NO_TASK
    except RequestRefused as error:
        complain(str(error))
        return EXPIRED if error.code == "expired" else WRONG_USAGE


def _report(task: TaskSocket, verb: str, **fields: Any) -> int:
    task.request(verb, **fields)
    return 0


def _report_stdin(task: TaskSocket, stream: str) -> int:
    """Report each line of stdin as it arrives."""
    rest = b""
    while data := os.read(0, _CHUNK_BYTES):
        complete, end, rest = (rest + data).rpartition(b"\n")
        if len(rest) >= _CHUNK_BYTES:  # a line without an end
            complete, end, rest = rest, b"", b""
        if complete or end:
            task.request("log", text=(complete + end).decode("utf-8", "replace"), stream=stream)
    if rest:
        task.request("log", text=rest.decode("utf-8", "replace"), stream=stream)
    return 0


def _ask_and_print(task: TaskSocket, fields: dict[str, Any], *, as_json: bool) -> int:
    who = f"task:{os.environ.get(TASK_VARIABLE, 'ID')}"
    how = "--input TEXT" if fields["kind"] == "input" or fields["options"] else "--approve or --reject"
    note(f"waiting for a viewer to answer {fields['text']!r}: fanline tail {who} {how}")
    answer = task.request("ask", waits=True, **fields)
    approved, value = bool(answer.get("approved")), answer.get("value")
    if as_json:
        put(json.dumps({key: answer.get(key) for key in ("approved", "value", "by")}))
    elif isinstance(value, bool):
        put("yes" if value else "no")
    else:
        put(value if isinstance(value, str) else json.dumps(value))
    return 0 if approved else REJECTED


# --- arguments ----------------------------------------------------------------------------------------------------


def _numbers(text: str) -> dict[str, float]:
    done, slash, total = text.removesuffix("%").partition("/")
    with suppress(ValueError):
        numbers = {"done": float(done), "total": float(total)} if slash else {"percent": float(done)}
        most = _MOST_AMOUNT if slash else 100
        if all(0 <= number <= most for number in numbers.values()):
            return numbers
    raise WrongUsage(f"{text!r} is not an amount: write 40, 40% or 3/10, or give a message alone with --message")


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d{1,9})([smhd]?)", text)
    if found is None or int(found[1]) == 0:
        raise WrongUsage(f"{text!r} is not a time: write 90, 15m, 1h or 7d")
    return float(int(found[1]) * _UNITS[found[2]])


def _json_or_text(text: str) -> Any:
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)  # json.loads accepts NaN and 1e999, which are not JSON
    except (ValueError, RecursionError):
        return text
    return value
