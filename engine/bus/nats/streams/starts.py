"""The starts of the embedded nats-server, noted in each stream: so that a store that went back in time is noticed.

A start is a random name. Before the server takes its first client, it is noted in the metadata of each stream, after
the starts before it, each with the last offset at which the stream still agrees with it. If the store is an older copy,
the offsets beyond what the copy holds are thereby declared void, and a start that the copy does not know is unknown.
Metadata is stored with the stream, and comes with each STREAM.INFO: state and epoch are of one moment.
"""

from collections.abc import Mapping
from typing import Any

STARTS = "fanline_starts"
"""Key of a stream's metadata: `name:last` of each earlier start, then the name of this one, separated by commas."""
_MOST = 100  # starts that are remembered; a client that comes back after more of them gets a gap


def read_starts(info: Mapping[str, Any]) -> dict[str, int]:
    """Start -> the last offset at which the stream agrees with it, oldest first; the last one is the present start.

    `info`: the reply to STREAM.INFO. A stream that has seen no start yet is in a nameless one, "".
    """
    noted = (info["config"].get("metadata") or {}).get(STARTS, "")
    pairs = (each.partition(":") for each in noted.split(","))
    return {name: int(last or 0) for name, _, last in pairs}


def with_start(info: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The configuration of a stream in which a new start is noted."""
    last = info["state"]["last_seq"]
    *earlier, present = read_starts(info).items()
    # A start before this one agrees no further than the stream reaches now, however far it had come.
    valid = [*((each, min(until, last)) for each, until in earlier), (present[0], last)]
    noted = ",".join([*(f"{each}:{until}" for each, until in valid[-_MOST:]), name])
    config = info["config"]
    return {**config, "metadata": {**(config.get("metadata") or {}), STARTS: noted}}
