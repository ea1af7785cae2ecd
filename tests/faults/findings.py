"""What was seen during a fault, and which promises it breaks. Pure."""

from collections import Counter
from typing import Any

import msgspec


class Watched(msgspec.Struct, frozen=True):
    """What one viewer of a durable channel was handed. It was subscribed from the channel's first message on."""

    name: str
    channel: str
    seen: list[str]
    """The names of all messages, in the order of their arrival."""
    repeats: int = 0
    """Offsets that it was handed again."""
    gaps: int = 0
    faults: list[str] = []
    """Messages that do not follow on the one before them."""
    silence: float = 0.0
    """The most seconds between two messages."""


class JobEnd(msgspec.Struct, frozen=True):
    """What one viewer of a task had at the end."""

    name: str
    state: str
    missing_lines: int
    """Lines of output that the job has printed, and that the viewer does not have as they were."""
    gaps: int = 0
    faults: list[str] = []


class Observed(msgspec.Struct):
    """All that the bystanders of one row have noted."""

    acknowledged: dict[str, list[str]]
    """Channel -> the names of the messages that the server, or JetStream, has acknowledged."""
    watched: list[Watched]
    jobs: list[JobEnd]
    refused: dict[str, int]
    """Error code -> how often a publisher got it."""
    complaints: list[str]
    """What else was not as promised, in sentences."""


class Findings(msgspec.Struct, frozen=True):
    """The columns of one row of the table."""

    acknowledged: int
    lost: int
    """Messages that were acknowledged and that at least one viewer has not seen."""
    duplicates: int
    """Offsets that were handed to one viewer twice, and messages that were stored twice."""
    gaps: int
    silence: float
    broken: list[str]
    """The promises that were not kept, in sentences."""


def judge(observed: Observed, silence: float) -> Findings:
    """`silence`: for how many seconds a viewer may hear nothing."""
    lost = {(one.channel, name) for one in observed.watched for name in _missing(one, observed)}
    duplicates = sum(one.repeats + len(one.seen) - len(set(one.seen)) for one in observed.watched)
    everyone: list[Watched | JobEnd] = [*observed.watched, *observed.jobs]
    gaps = sum(one.gaps for one in everyone)
    longest = max((one.silence for one in observed.watched), default=0.0)
    broken = [f"{len(lost)} messages lost: {_some(sorted(name for _, name in lost))}"] if lost else []
    broken += [f"{duplicates} duplicates"] if duplicates else []
    told = ", ".join(f"{one.gaps} to {one.name}" for one in everyone if one.gaps)
    broken += [f"{gaps} gaps, although everything is stored: {told}"] if gaps else []
    broken += [f"silent for {longest:.1f} s, more than {silence:g}"] if longest > silence else []
    broken += [f"{one.name}: {fault}" for one in everyone for fault in one.faults[:1]]
    broken += _wrong_order(observed.watched) + _wrong_ends(observed.jobs)
    broken += [f"{text} ({count} times)" if count > 1 else text for text, count in _counted(observed.complaints)]
    acknowledged = sum(len(names) for names in observed.acknowledged.values())
    if not acknowledged:
        broken.append("nothing was acknowledged")
    return Findings(acknowledged, len(lost), duplicates, gaps, longest, broken)


def _missing(one: Watched, observed: Observed) -> set[str]:
    return set(observed.acknowledged.get(one.channel, ())) - set(one.seen)


def _wrong_order(watched: list[Watched]) -> list[str]:
    """Viewers of a channel that were handed the same messages in another order than the first viewer of it."""
    first: dict[str, Watched] = {}
    for one in watched:
        first.setdefault(one.channel, one)
    return [
        f"{one.name} and {first[one.channel].name} saw the messages of {one.channel} in different orders"
        for one in watched
        if set(one.seen) == set(first[one.channel].seen)
        and list(dict.fromkeys(one.seen)) != list(dict.fromkeys(first[one.channel].seen))
    ]


def _wrong_ends(jobs: list[JobEnd]) -> list[str]:
    broken = [f"{job.name} is {job.state}, not completed" for job in jobs if job.state != "completed"]
    return broken + [f"{job.name} lacks {job.missing_lines} lines" for job in jobs if job.missing_lines]


def _counted(sentences: list[str]) -> list[tuple[str, int]]:
    return list(Counter(sentences).items())


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def name_of(data: Any) -> str:
    """The name of a message, by its data: text, or a map with a name as an event of a producer has it."""
    return str(data["name"] if isinstance(data, dict) else data)
