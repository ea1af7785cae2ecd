"""Port and passwords of the embedded nats-server stay with its data directory."""

import logging
import socket
import stat
from pathlib import Path

import pytest

from fanline.workers.embedded_nats import kept_address as module
from fanline.workers.embedded_nats.kept_address import FILE_NAME, KeptAddress, kept_address

pytestmark = pytest.mark.process


def taken(data_dir: Path) -> KeptAddress:
    with kept_address(data_dir) as address:
        return address


def test_the_same_directory_has_the_same_port_and_passwords(tmp_path: Path) -> None:
    assert taken(tmp_path) == taken(tmp_path)


def test_two_directories_share_nothing(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    with kept_address(first) as one, kept_address(second) as two:
        assert one.port != two.port
        assert len({one.engine_password, one.producer_password, two.engine_password, two.producer_password}) == 4


def test_it_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    taken(tmp_path)
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600


def test_a_port_that_another_program_has_is_given_up_and_the_passwords_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = taken(tmp_path)
    with socket.create_server(("127.0.0.1", before.port)), caplog.at_level(logging.WARNING):
        after = taken(tmp_path)
    assert after.port != before.port
    assert {after.engine_password, after.producer_password}.isdisjoint(
        {before.engine_password, before.producer_password}
    )
    assert f"another program has port {before.port}" in caplog.text
    assert taken(tmp_path) == after


def test_no_outgoing_connection_can_have_taken_the_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranges = tmp_path / "ip_local_port_range"
    ranges.write_text("32768\t60999\n")
    monkeypatch.setattr(module, "_OUTGOING", ranges)
    assert 10_240 <= taken(tmp_path).port < 32_768


def test_where_every_port_may_be_an_outgoing_one_it_takes_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranges = tmp_path / "ip_local_port_range"
    ranges.write_text("1024\t65535\n")
    monkeypatch.setattr(module, "_OUTGOING", ranges)
    assert taken(tmp_path) == taken(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"port": 0}', b'{"port": 4222, "engine_password": "x"}'])
def test_a_file_that_cannot_be_relied_on_is_replaced_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    (tmp_path / FILE_NAME).touch(mode=0o600)
    (tmp_path / FILE_NAME).write_bytes(content)
    address = taken(tmp_path)
    assert "gets another port and other passwords" in caplog.text
    assert taken(tmp_path) == address


def test_passwords_that_others_may_have_read_are_not_used_again(tmp_path: Path) -> None:
    before = taken(tmp_path)
    (tmp_path / FILE_NAME).chmod(0o644)
    after = taken(tmp_path)
    assert after.producer_password != before.producer_password
