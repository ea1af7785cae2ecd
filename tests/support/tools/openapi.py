"""`python -m tests.support.tools.openapi` writes docs/reference/openapi.json anew, from the code."""

import json
from typing import Any

from fanline.workers.control.app import make_app
from tests.support.paths import REFERENCE

PATH = REFERENCE / "openapi.json"


def described() -> str:
    """The OpenAPI of the management API, as the file has it."""
    return json.dumps(make_app().openapi(), indent=1, ensure_ascii=False) + "\n"


def committed() -> Any:
    """What the file has. A test holds it to the code; building it takes seconds."""
    return json.loads(PATH.read_text(encoding="utf-8"))


if __name__ == "__main__":
    PATH.write_text(described(), encoding="utf-8")
