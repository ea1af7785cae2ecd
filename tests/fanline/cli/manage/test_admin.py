"""`fanline admin` makes the calls that the API has, and shows their answers."""

import io
import json
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import pytest

from fanline.cli.dispatch import dispatch
from fanline.cli.manage import admin as module
from fanline.cli.manage.admin_calls import CALLS
from fanline.management import PREFIX
from fanline.protocol.tasks.snapshot import Snapshot
from tests.support.paths import REFERENCE

API = json.loads((REFERENCE / "openapi.json").read_text(encoding="utf-8"))


class _Client:
    """Records calls and gives the answers that it has, one after the other."""

    asked: list[tuple[str, str, Any, Any]]
    answers: list[Any]

    def __init__(self, url: str | None) -> None:
        self.url = url

    def call(self, method: str, path: str, query: Mapping[str, Any] | None = None, body: Any = None) -> Any:
        self.asked.append((method, path, None if query is None else dict(query), body))
        return self.answers.pop(0)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> type[_Client]:
    monkeypatch.setattr(module, "ManagementClient", _Client)
    _Client.asked, _Client.answers = [], []
    return _Client


def run(*args: str) -> tuple[int, str]:
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        code = dispatch("admin", module.add_admin, list(args))
    return code, said.getvalue()


@pytest.mark.parametrize("name", CALLS)
def test_every_call_is_one_of_the_api_with_fields_that_it_has(name: str) -> None:
    call = CALLS[name]
    operation = API["paths"][PREFIX + call.path][call.method.lower()]
    known = json.dumps(API["components"]["schemas"]) + json.dumps(Snapshot.__struct_fields__)
    for column in call.columns:
        for field in column.split("."):
            assert f'"{field}"' in known, column
    if call.body:
        reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        schema = API["components"]["schemas"][reference.rpartition("/")[2]]
        assert set(call.body) <= set(schema["properties"])
        assert set(schema.get("required", ())) <= set(call.body)


def test_the_help_names_every_call() -> None:
    _, said = run("--help")
    assert all(name in said for name in CALLS)


def test_a_list_is_a_table_of_all_pages_up_to_the_limit(client: type[_Client]) -> None:
    item = {"channel": "news:all", "subscribers": 2}
    client.answers = [
        {"items": [item], "next": "news:all", "workers": {"missing": []}},
        {"items": [{"channel": "news:more", "subscribers": 10}], "next": None, "workers": {"missing": ["worker-1"]}},
    ]
    code, said = run("channels", "--set", "prefix=news:")
    assert code == 0
    assert said == "channel    subscribers\nnews:all   2\nnews:more  10\nNOT ANSWERED: worker-1\n"
    assert client.asked[1] == ("GET", "/channels", {"limit": 99, "prefix": "news:", "after": "news:all"}, None)


def test_an_answer_that_is_no_list_is_a_line_a_field_and_numbers_of_workers_leave_out_zeros(
    client: type[_Client],
) -> None:
    worker = {"name": "worker-0", "pid": 7, "counters": {"accepted": 3, "refused": 0}}
    hook = {"function": "app.heard", "calls": 3, "seconds": 0.1 + 0.2}
    client.answers = [{"errors": 0, "per_worker": [worker], "hooks": [hook], "workers": {"missing": []}}]
    assert [line.split(maxsplit=1) for line in run("stats")[1].splitlines()] == [
        ["errors", "0"],
        ["per_worker", "name worker-0, pid 7, accepted 3"],
        ["hooks", "function app.heard, calls 3, seconds 0.3"],
        ["workers.missing", "[]"],
    ]


def test_arguments_go_where_the_call_has_them(client: type[_Client]) -> None:
    client.answers = [{"connections": 1}, {}]
    assert run("send-to-user", "anna", '{"type": "x"}', "--json") == (0, '{"connections": 1}\n')
    run("subscribe", "ab-1", "doc:7")
    assert client.asked == [
        ("POST", "/send-to-user", None, {"user_id": "anna", "message": {"type": "x"}}),
        ("POST", "/connections/ab-1/subscribe", None, {"channel": "doc:7"}),
    ]


def test_a_server_that_is_not_well_ends_the_command_with_1(client: type[_Client]) -> None:
    client.answers = [{"healthy": False}, {"healthy": True}]
    assert [run("health")[0] for _ in range(2)] == [1, 0]


def test_a_name_cannot_lead_to_another_path(client: type[_Client]) -> None:
    client.answers = [{"items": [], "next": None, "workers": {"missing": []}}]
    assert run("user", "../keys")[0] == 0
    assert client.asked[0][1] == "/users/..%2Fkeys/connections"


@pytest.mark.parametrize(
    "args", [("nothing",), ("user",), ("stats", "x"), ("send-to-user", "a", "{"), ("stats", "--set", "a")]
)
def test_wrong_usage_is_said_before_anything_is_asked(client: type[_Client], args: tuple[str, ...]) -> None:
    assert run(*args)[0] == 2
    assert client.asked == []


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["users"], "there is no call 'users' (perhaps user): `fanline admin --help`"),
        (["frobnicate"], "there is no call 'frobnicate': `fanline admin --help`"),
        (["send-to-user", "anna", "hello"], 'is not a JSON object, as in \'{"type": "notice"'),
    ],
)
def test_what_was_typed_wrongly_is_answered_with_what_would_be_right(args: list[str], says: str) -> None:
    exit_code, said = run(*args)
    assert (exit_code, says in " ".join(said.split())) == (2, True), said


def test_each_line_of_the_help_says_what_it_is_about_without_the_line_above() -> None:
    for call in CALLS.values():
        assert not {"them", "those", "these", "it"} & set(call.help.lower().strip(".").split()), call.name
