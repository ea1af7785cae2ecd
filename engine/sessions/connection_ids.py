"""Public ids of connections. Anyone may know one: it takes nothing up, and a client can only name its own in a `pub`.

An id is that of the process and the connection's number in it, so that a worker sees at once whether a connection is
one of its own, and finds it without an index of texts.
"""

import itertools
import re
import secrets

PROCESS = secrets.token_hex(6)
"""The name of this process."""
_ID = re.compile(r"([0-9a-f]{12})-[0-9a-f]{1,16}")
_numbers = itertools.count(1)


def next_number() -> int:
    """The number of a new connection of this process."""
    return next(_numbers)


def connection_id(number: int) -> str:
    """The public id of the connection with this number."""
    return f"{PROCESS}-{number:x}"


def number_of(connection: str) -> int | None:
    """The inverse; None for a connection of another process, and for a text that is no id."""
    process, _, number = connection.partition("-")
    if process != PROCESS:
        return None
    try:
        return int(number, 16)
    except ValueError:
        return None


def process_of(connection: str) -> str | None:
    """The name of the process whose connection this is; None for a text that is no id."""
    found = _ID.fullmatch(connection)
    return None if found is None else found[1]
