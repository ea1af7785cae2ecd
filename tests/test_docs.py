"""The documentation holds: links lead somewhere, code blocks are code, commands exist, claims match the engine."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from fanline.engine.sessions.commands.commands import COMMANDS
from fanline.engine.settings import EngineSettings
from tests.support.paths import ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "tests" / "vectors" / "README.md",
]

_BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^(?P=indent)```", re.MULTILINE | re.DOTALL
)
_LINK = re.compile(r"!?\[[^\]]*\]\(<?([^)\s>]+)>?[^)]*\)")
_ID = re.compile(r"[^\w\- ]")


class Block(NamedTuple):
    page: Path
    line: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(language: str) -> list[Block]:
    """The code blocks of one language on all pages."""
    return [block for page in PAGES for block in blocks_of(page) if block.language == language]


def blocks_of(page: Path) -> Iterator[Block]:
    """All code blocks of a page."""
    text = page.read_text(encoding="utf-8")
    for match in _BLOCK.finditer(text):
        code = "\n".join(line.removeprefix(match["indent"]) for line in match["code"].splitlines())
        yield Block(page, text.count("\n", 0, match.start()) + 1, match["language"], code)


def prose(page: Path) -> str:
    """A page without its code."""
    return re.sub(r"`[^`\n]*`", "", _BLOCK.sub("", page.read_text(encoding="utf-8")))


def anchors(page: Path) -> set[str]:
    """What a link may name after `#`: the headings as forges make ids of them."""
    headings = re.findall(r"^#+ +(.+)$", _BLOCK.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {_ID.sub("", heading.strip().lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    """The links of a page into this repository that lead nowhere."""
    broken = []
    for target in _LINK.findall(prose(page)):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z][a-z0-9+.-]*:", path):
            continue
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_internal_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_the_index_names_every_page_of_its_shelves() -> None:
    index = ROOT / "docs" / "README.md"
    linked = set(_LINK.findall(prose(index)))
    files = [
        file
        for shelf in ("tutorial", "how-to", "reference", "explanation")
        for file in (index.parent / shelf).iterdir()
    ]
    assert {f"{file.parent.name}/{file.name}" for file in files if file.is_file()} - linked == set()


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_text("# The Second: page!\n")
    page = tmp_path / "a.md"
    page.write_text(
        "[ok](b.md) [ok](b.md#the-second-page) [ok](#top) [out](https://example.org/x)\n# Top\n"
        "[gone](c.md) [gone](b.md#third) ![gone](x.svg) `[code](d.md)`\n```\n[code](e.md)\n```\n"
    )
    assert broken_links(page) == ["c.md", "b.md#third", "x.svg"]


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_blocks_compile(block: Block) -> None:
    compile("\n" * block.line + block.code, str(block.page), "exec", dont_inherit=True)


@pytest.mark.parametrize("block", blocks("json"), ids=str)
def test_json_blocks_parse(block: Block) -> None:
    json.loads(block.code)


def test_make_has_the_targets_that_the_pages_name_and_helps_with_each() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (declared,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert set(re.findall(r"^([a-z]+):.*## ", makefile, re.MULTILINE)) == set(declared.split())
    named = {name for page in PAGES for name in re.findall(r"(?:^|`)make ([a-z]+)", page.read_text(), re.MULTILINE)}
    assert "quick" in named
    assert named <= set(declared.split())


def test_the_protocol_page_says_of_every_command_that_it_works() -> None:
    page = (ROOT / "docs" / "reference" / "protocol.md").read_text(encoding="utf-8")
    section = page.partition("Client to server:")[2].partition("Server to client:")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", section.partition("|---")[2], re.MULTILINE))
    assert set(rows) == set(COMMANDS)
    assert all(says.startswith("works") for says in rows.values())


def test_the_protocol_page_says_the_default_limits() -> None:
    page = " ".join((ROOT / "docs" / "reference" / "protocol.md").read_text(encoding="utf-8").split())
    settings = EngineSettings()
    assert f"{settings.max_message_bytes:,} bytes (setting `max_message_bytes`" in page
    assert f"{settings.max_subscriptions:,} (setting `max_subscriptions`" in page
    assert f"(default {int(settings.heartbeat * 1000):,})" in page
    assert f"After {settings.idle_timeout:g} s without one (setting `idle_timeout`)" in page
    assert f"{settings.handshake_timeout:g} s (setting `handshake_timeout`)" in page
    assert (settings.outbox_bytes, settings.outbox_messages) == (1024 * 1024, 16_384)
