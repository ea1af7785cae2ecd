"""The secret that a server draws for itself is only taken from a file that nobody else can have written or read."""

import os
from pathlib import Path

import pytest

from fanline.workers.configuration.loading import load_settings
from fanline.workers.errors import ServeError
from fanline.workers.own_secret import FILE_NAME, with_secret


def drawn(data_dir: Path) -> str:
    settings = load_settings({"auth": "token", "data_dir": str(data_dir)}, {}, None)
    return with_secret(settings).tokens.secret


def test_it_is_drawn_once_and_kept(tmp_path: Path) -> None:
    first = drawn(tmp_path)
    assert len(first) >= 32
    assert drawn(tmp_path) == first


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o620, 0o602])
def test_a_file_that_others_may_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    drawn(tmp_path)
    (tmp_path / FILE_NAME).chmod(mode)
    with pytest.raises(ServeError, match="other users may"):
        drawn(tmp_path)


def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn(tmp_path)
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    with pytest.raises(ServeError, match="another user"):
        drawn(tmp_path)


def test_an_empty_file_is_refused_instead_of_letting_nobody_in(tmp_path: Path) -> None:
    drawn(tmp_path)
    (tmp_path / FILE_NAME).write_text("\n")
    with pytest.raises(ServeError, match="is empty"):
        drawn(tmp_path)


def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / FILE_NAME, 0o600)
    with pytest.raises(ServeError, match="no file"):
        drawn(tmp_path)
