"""IDs for tasks that were not given one, such as `make-x7f3`."""

import re
import secrets

_CHARACTERS = "abcdefghijkmnpqrstuvwxyz23456789"  # without those that look alike
_RANDOM = 4
_LONGEST = 40


def fresh_id(name: str) -> str:
    """An ID that a person can type: a name (of a command, of a progress bar) and random characters."""
    word = re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-")[:_LONGEST].rstrip("-") or "task"
    return f"{word}-{''.join(secrets.choice(_CHARACTERS) for _ in range(_RANDOM))}"
