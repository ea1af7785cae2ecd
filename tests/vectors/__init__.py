"""Golden bytes, shared with every SDK. README.md has the format."""

import json
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent


def load(file: str, table: str) -> list[Any]:
    """The rows of one table of one vector file."""
    rows: list[Any] = json.loads((_HERE / file).read_text(encoding="utf-8"))[table]
    return rows


def names(rows: list[Any]) -> list[str]:
    """Test ids of rows that have a name."""
    return [row["name"] for row in rows]
