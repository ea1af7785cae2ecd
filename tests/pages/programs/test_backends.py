"""docs/how-to/use-*.md quote the programs of examples/backends, which tests/integration/backends runs."""

import re

import pytest

from tests.integration.backends.shops import BACKENDS, SECRET
from tests.support.paths import ROOT


@pytest.mark.parametrize("name", ["fastapi", "django", "celery"])
def test_a_page_shows_the_program_and_the_settings_that_are_run(name: str) -> None:
    page = (ROOT / "docs" / "how-to" / f"use-{name}.md").read_text(encoding="utf-8")
    for language, file in (("python", "shop.py"), ("toml", "fanline.toml")):
        first = re.search(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
        assert first
        assert first[1] == (BACKENDS / name / file).read_text(encoding="utf-8")
    assert name == "celery" or f"WEBHOOK_SECRET={SECRET} " in page
