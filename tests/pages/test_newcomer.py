"""No page, and no block of a page, is left out unnoticed."""

from pathlib import Path

import pytest

from tests.pages.conftest import Installed
from tests.pages.newcomer import reading
from tests.support.paths import ROOT

pytestmark = pytest.mark.process
PAGE = "# A page\n```\necho one\n```\nNow `echo two`.\n```\necho three\n```\n"


def test_every_how_to_is_followed() -> None:
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert [path.name for path in (ROOT / "docs" / "how-to").glob("*.md") if path.name not in tests] == []


@pytest.fixture
def page(tmp_path: Path) -> str:
    path = tmp_path / "page.md"
    path.write_text(PAGE)
    return str(path)


def test_a_page_is_followed_to_its_end(page: str, tmp_path: Path, installed: Installed) -> None:
    with reading(page, tmp_path, installed) as read:
        assert read.run("echo one") == "one\n"
        assert read.newcomer.terminal("other").run(read.says("echo two")) == "two\n"
        assert read.run("echo three") == "three\n"


def test_a_block_that_no_step_follows_is_found(page: str, tmp_path: Path, installed: Installed) -> None:
    with pytest.raises(AssertionError, match="blocks that no step follows"), reading(page, tmp_path, installed) as read:
        read.run("echo one")


def test_a_block_that_was_rewritten_is_found(page: str, tmp_path: Path, installed: Installed) -> None:
    with pytest.raises(AssertionError, match="does not begin with"), reading(page, tmp_path, installed) as read:
        read.run("echo 1")


def test_a_command_that_the_page_no_longer_has_is_found(page: str, tmp_path: Path, installed: Installed) -> None:
    with pytest.raises(AssertionError, match="does not say"), reading(page, tmp_path, installed) as read:
        read.says("echo 2")


def test_a_command_that_fails_is_found(page: str, tmp_path: Path, installed: Installed) -> None:
    with pytest.raises(AssertionError, match="ended with 3"), reading(page, tmp_path, installed) as read:
        read.newcomer.terminal("other").run("exit 3")
