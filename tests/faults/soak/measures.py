"""What is measured of the processes of a server, and of its NATS."""

from pathlib import Path
from typing import Any
from urllib.request import urlopen

import msgspec

from fanline.loadtest.bench.machine import resident_kb
from tests.faults.probe.sitecustomize import COUNT, TASKS

MEMORY, FILES, THREADS, TASK_COUNT = "memory, KiB", "open files", "threads", "Trio tasks"
CONNECTIONS, SUBSCRIPTIONS, CONSUMERS = "connections", "subscriptions", "consumers"


def of_process(pid: int, probe: Path | None = None) -> dict[str, float]:
    """Of one process; the number of its Trio tasks only if the probe is in it, by the directory of its files."""
    values = {
        MEMORY: resident_kb((pid,)),
        FILES: len(list(Path(f"/proc/{pid}/fd").iterdir())),
        THREADS: len(list(Path(f"/proc/{pid}/task").iterdir())),
    }
    if probe is not None:
        values[TASK_COUNT] = COUNT.unpack((probe / TASKS.format(pid)).read_bytes())[0]
    return {name: float(value) for name, value in values.items()}


def of_nats(monitoring: str) -> dict[str, float]:
    """Of a nats-server, by its HTTP monitoring: what clients hold there, and how large the streams and buckets are."""
    streams = [
        stream
        for account in _get(f"{monitoring}/jsz?streams=true").get("account_details", [])
        for stream in account["stream_detail"]
    ]
    connections = _get(f"{monitoring}/connz")["connections"]
    held = {
        CONNECTIONS: len(connections),
        SUBSCRIPTIONS: sum(connection["subscriptions"] for connection in connections),
        CONSUMERS: sum(stream["state"]["consumer_count"] for stream in streams),
    }
    sizes = {f"{stream['name']}, bytes": stream["state"]["bytes"] for stream in streams if stream["state"]["bytes"]}
    return {name: float(value) for name, value in (held | dict(sorted(sizes.items()))).items()}


def _get(url: str) -> dict[str, Any]:
    with urlopen(url, timeout=5) as answer:
        found: dict[str, Any] = msgspec.json.decode(answer.read())
        return found
