"""What is committed of the management API is what the code says."""

import re

from fanline.protocol.auth.api_keys import ApiRight
from fanline.workers.control.app import PREFIX
from tests.protocol.documented.test_reference_pages import table
from tests.support.paths import REFERENCE
from tests.support.tools.openapi import PATH, committed, described

PAGE = (REFERENCE / "management-api.md").read_text(encoding="utf-8")


def test_the_committed_openapi_is_that_of_the_code() -> None:
    assert PATH.read_text(encoding="utf-8") == described(), "python -m tests.support.tools.openapi"


def test_the_page_has_every_call() -> None:
    paths = committed()["paths"]
    calls = [f"{method.upper()} {path.removeprefix(PREFIX)}" for path, found in paths.items() for method in found]
    assert sorted(row[0].strip("`") for row in table(PAGE, "| call | needs |")) == sorted(calls)


def test_the_page_has_every_right() -> None:
    assert [row[0].strip("`") for row in table(PAGE, "| right | calls |")] == list(ApiRight)


def test_every_call_says_how_it_may_be_refused() -> None:
    for path, found in committed()["paths"].items():
        for call in found.values():
            assert {"400", "401", "403", "422", "503"} <= set(call["responses"]), path
            assert call["description"], path


def test_every_field_of_an_answer_that_is_not_plain_is_described() -> None:
    schemas = committed()["components"]["schemas"]
    assert not [name for name in schemas if re.search(r"HTTPValidationError|ValidationError", name)]
