"""The audit log says who came, who was refused and who did what, and holds no secret."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import trio

from fanline.engine.access.audit import Audit, AuditEvent
from fanline.engine.settings import EngineSettings
from tests.engine.access.clients import token, token_access
from tests.engine.running import running_engine
from tests.protocol.documented.test_reference_pages import table
from tests.support.paths import ROOT
from tests.support.raw_client import connect, connect_raw, upgrade_request

PAGE = (ROOT / "docs" / "reference" / "authentication.md").read_text(encoding="utf-8")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_page_lists_every_event() -> None:
    assert [row[0] for row in table(PAGE, "| event |")] == list(AuditEvent)


def test_a_pipe_that_nobody_reads_does_not_hold_the_worker(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "audit.pipe"
    os.mkfifo(path)
    Audit(str(path), "worker-0").record(AuditEvent.CONNECTED)
    assert "cannot be written" in caplog.text


async def test_what_is_in_the_file_is_told_to_whoever_listens(tmp_path: Path) -> None:
    path, told = tmp_path / "audit.jsonl", list[bytes]()
    for settings in (EngineSettings(audit_log=str(path), audit_events=True), EngineSettings(audit_events=True)):
        with trio.fail_after(10):
            async with running_engine(settings) as engine:
                await engine.bus.answer("fanline.event.audit", lambda line, _: told.append(line))
                async with connect(engine.host, engine.port):
                    pass
    assert path.read_bytes().splitlines() == told[:1]
    assert [json.loads(line)["event"] for line in told] == ["connected", "connected"]


async def test_a_client_leaves_its_traces_and_none_of_its_secrets(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    shown = token(channels={"task:*": ["sub"], "typing:*": ["pub"]}, jti="t1")
    with trio.fail_after(20):
        async with running_engine(EngineSettings(audit_log=str(path)), access=token_access()) as engine:
            async with connect_raw(engine.host, engine.port) as client:
                await client.upgrade(Authorization=f"Bearer {shown}")
                await client.json()
                for command in (
                    {"t": "sub", "c": "task:1"},
                    {"t": "sub", "c": "doc:1"},
                    {"t": "pub", "c": "typing:1", "d": {"password": "in the data"}},
                    {"t": "auth", "d": {"token": token(channels={"task:*": ["cancel"]})}},
                ):
                    await client.ask({"v": 1, "i": "1", **command})
            async with connect_raw(engine.host, engine.port) as client:
                await client.send(upgrade_request(subprotocol=None))
                await client.read_http()
            async with connect_raw(engine.host, engine.port) as client:
                await client.upgrade(Authorization="Bearer rubbish")
                await client.closed()
    found = lines(path)
    assert [(line["event"], line.get("channel"), line.get("code")) for line in found] == [
        ("connected", None, None),
        ("subscribed", "task:1", None),
        ("refused", "doc:1", "permission_denied"),
        ("published", "typing:1", None),
        ("authenticated", None, None),
        ("refused", None, "unauthenticated"),
        ("refused", None, "unauthenticated"),
    ]
    assert {line.get("user") for line in found[:5]} == {"anna"}
    assert (found[0]["token_id"], found[0]["address"]) == ("t1", "127.0.0.1")
    text = path.read_text()
    assert [secret for secret in ("in the data", "rubbish", *shown.split(".")) if secret in text] == []
    assert path.stat().st_mode & 0o077 == 0


def test_a_rotated_file_is_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = Audit(str(path), "w")
    audit.record(AuditEvent.CONNECTED)
    path.rename(tmp_path / "audit.1")
    audit.record(AuditEvent.REFUSED)
    path.unlink()
    audit.record(AuditEvent.REVOKED)
    audit.close()
    assert [line["event"] for line in lines(path)] == ["revoked"]
    assert [line["event"] for line in lines(tmp_path / "audit.1")] == ["connected"]


def test_a_file_that_cannot_be_written_is_reported_once_and_hurts_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    audit = Audit(str(tmp_path / "nowhere" / "audit.jsonl"), "w")
    for _ in range(3):
        audit.record(AuditEvent.CONNECTED)
    assert len(caplog.records) == 1


def test_without_a_path_nothing_is_opened() -> None:
    files = Path("/proc/self/fd")
    before = len([*files.iterdir()])
    Audit("", "w").record(AuditEvent.CONNECTED)
    assert len([*files.iterdir()]) == before
