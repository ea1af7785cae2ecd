"""The tables of docs/reference are those of the code."""

import re

from fanline.protocol.dialects import PLAIN
from fanline.protocol.dialects.plain.commands import COMMANDS as PLAIN_COMMANDS
from fanline.protocol.envelope import KEYS, MessageType, decode_json
from fanline.protocol.errors import CloseReason, ErrorCode
from fanline.protocol.nats.subjects import to_subject
from fanline.protocol.websocket import deflate
from fanline.protocol.websocket.handshake import _STATUS as HTTP_STATUSES
from tests.support.paths import REFERENCE

PROTOCOL = (REFERENCE / "protocol.md").read_text(encoding="utf-8")
PLAIN_PAGE = (REFERENCE / "plain-dialect.md").read_text(encoding="utf-8")


def table(page: str, head: str) -> list[list[str]]:
    """The rows of every table whose first line starts with `head`, without backticks."""
    rows: list[list[str]] = []
    for block in re.findall(rf"^{re.escape(head)}.*\n\|[-|]+\|\n((?:\|.*\n)+)", page, re.MULTILINE):
        rows += [[cell.strip().strip("`") for cell in line.strip("|").split(" | ")] for line in block.splitlines()]
    assert rows, f"no table that starts with {head}"
    return [[cell.strip("| `") for cell in row] for row in rows]


def test_the_fields_table_is_the_codecs_key_table() -> None:
    rows = table(PROTOCOL, "| key in JSON |")
    assert [(row[0], int(row[1])) for row in rows] == list(KEYS.values())


def test_the_type_tables_name_every_message_type() -> None:
    types = [row[0] for row in table(PROTOCOL, "| `t` |")]
    assert set(types) == set(MessageType)
    assert sorted(types) == sorted(
        [*MessageType, MessageType.AUTH, MessageType.PRESENCE, MessageType.PUB, MessageType.UNSUB]
    )  # they go both ways


def test_the_error_table_names_every_error_code() -> None:
    assert [row[0] for row in table(PROTOCOL, "| code | meaning |")] == list(ErrorCode)


def test_the_close_table_is_the_close_reasons() -> None:
    rows = table(PROTOCOL, "| code | name | text |")
    assert [(int(row[0]), row[1], row[2], row[4] == "yes") for row in rows] == [
        (reason.code, reason.name, reason.text, reason.reconnect) for reason in CloseReason
    ]


def test_the_http_table_names_every_refusal() -> None:
    refusals = [status for status in HTTP_STATUSES if status >= 400]
    assert [int(row[0]) for row in table(PROTOCOL, "| status | when |")] == refusals


def test_the_subjects_table_is_what_the_code_says() -> None:
    for row in table(PROTOCOL, "| channel | producers publish to |"):
        assert row[1] == to_subject(row[0])


def test_the_page_says_how_compression_is_answered() -> None:
    assert f"`{deflate.RESPONSE}`" in PROTOCOL
    assert f"Messages under {deflate.MIN_BYTES} bytes are sent uncompressed" in PROTOCOL


def test_the_conversation_is_made_of_envelopes() -> None:
    lines = re.findall(r"^[<>] (\{.*\})$", PROTOCOL, re.MULTILINE)
    assert len(lines) == 34
    assert {decode_json(line.encode()).type for line in lines} <= set(MessageType)


def test_the_plain_page_names_every_command() -> None:
    named = [re.findall(r"\w+", row[0]) for row in table(PLAIN_PAGE, "| type | fields | answer |")]
    assert {name for names in named for name in names} == set(PLAIN_COMMANDS)


def test_the_messages_of_the_client_on_the_plain_page_are_understood() -> None:
    lines = re.findall(r"^> (\{.*\})$", PLAIN_PAGE, re.MULTILINE)
    assert lines
    assert all(PLAIN.decode(line.encode()) for line in lines)
