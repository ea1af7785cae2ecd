"""The benches of durable channels: joining one that has a history, and coming back after a worker was killed."""

import itertools
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from fanline.loadtest.bench.crowd import Crowd, Place, say, upgrade
from fanline.loadtest.bench.errors import BenchError
from fanline.loadtest.bench.machine import cpu_seconds, resident_kb
from fanline.loadtest.bench.plan import Plan
from fanline.loadtest.bench.requests import RequestCount
from fanline.loadtest.bench.server import Side
from fanline.protocol.envelope import Envelope, MessageType, decode_json, encode_json
from fanline.protocol.websocket.frames import FrameReader, Opcode

Start = Callable[[Plan, Path], AbstractContextManager[Side]]

PATIENCE_SECONDS = 60.0
SETTLE_SECONDS = 1.0
KILL_AFTER = 0.25
"""Share of the time of publishing after which the worker is killed."""
_READ_BYTES = 1 << 20
_STAMP_BYTES = 32  # a little more than the stamp of common.h


class DurableFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What both benches count."""

    subscribers: int
    channels: int
    deliveries: int
    lost: int
    duplicated: int
    requests: int
    """Made of JetStream by the workers in the measured time."""
    requests_by_kind: dict[str, int]
    peak_kb: int

    @property
    def complete(self) -> bool:
        """Everything came, once and in order."""
        return not (self.lost or self.duplicated)


class JoinFigures(DurableFigures, frozen=True, kw_only=True):
    """Milliseconds from `sub` to the last message of the history, one join after the other, on a channel that others
    are subscribed to.
    """

    alone: float
    """Median when nobody is: the worker has to ask the stream for everything."""
    p50: float
    p90: float
    p99: float
    max: float
    cpu_us_per_join: float


class ResumeFigures(DurableFigures, frozen=True, kw_only=True):
    """Seconds from the kill until the subscribers of the killed worker were live again, with everything missed."""

    cut_off: int
    half: float
    most: float
    """Until 95 % of them were."""
    last: float
    gaps: int
    """Frames that tell of lost messages."""


def measure_joins(start: Start, plan: Plan) -> JoinFigures:
    """Store the plan's messages, then join from their start, again and again. Raises BenchError."""
    with started(start, plan) as (side, place, requests):
        for publisher in side.publishers:
            publisher.send("go")
            publisher.read(PATIENCE_SECONDS)
        time.sleep(SETTLE_SECONDS)  # NATS has taken the messages, the stream stores them
        alone = [_join(place, plan, number) for number in range(max(1, plan.subscribers // 10))]
        with Crowd(place, [plan.channel % number for number in range(plan.channels)]) as others:
            others.connect(others.subscribers)
            others.run(PATIENCE_SECONDS, lambda: all(each.live for each in others.subscribers))
            _join(place, plan, 0)  # looks back for all that follow
            requests.counts()
            cpu = cpu_seconds(side.pids)
            joins = [_join(place, plan, number) for number in range(plan.subscribers)]
            cpu = cpu_seconds(side.pids) - cpu
            asked = requests.counts()
        memory = resident_kb(side.pids, "VmHWM")
    lost, repeated = _count([numbers for _, numbers in alone + joins], plan.expected)
    p50, p90, p99, most = ranks([seconds * 1000 for seconds, _ in joins], (0.5, 0.9, 0.99, 1.0))
    return JoinFigures(
        subscribers=plan.subscribers,
        channels=plan.channels,
        deliveries=sum(len(numbers) for _, numbers in joins),
        lost=lost,
        duplicated=repeated,
        requests=sum(asked.values()),
        requests_by_kind=asked,
        peak_kb=memory,
        alone=ranks([seconds * 1000 for seconds, _ in alone], (0.5,))[0],
        p50=p50,
        p90=p90,
        p99=p99,
        max=most,
        cpu_us_per_join=cpu / plan.subscribers * 1e6,
    )


def measure_resume(start: Start, plan: Plan) -> ResumeFigures:
    """Publish to subscribers of all workers, kill one worker on the way, and wait until everybody has everything.

    Raises BenchError.
    """
    with started(start, plan) as (side, place, requests):
        channels = [plan.channel % (number % plan.channels) for number in range(plan.subscribers)]
        with Crowd(place, channels) as crowd:
            crowd.watch(requests.socket, requests.read)
            crowd.connect(crowd.subscribers)
            if not crowd.run(PATIENCE_SECONDS, lambda: all(each.live for each in crowd.subscribers)):
                raise BenchError(f"not all were subscribed within {PATIENCE_SECONDS:g} s")
            for publisher in side.publishers:
                publisher.send("go")
            crowd.run(plan.seconds * KILL_AFTER)
            requests.counts()
            killed = time.monotonic()
            os.kill(side.pids[0], signal.SIGKILL)
            crowd.run(
                plan.seconds + PATIENCE_SECONDS,
                lambda: all(each.live and each.next == plan.expected for each in crowd.subscribers),
            )
            return _resume_figures(crowd, plan, killed, requests.counts(), resident_kb(side.pids[1:], "VmHWM"))


@contextmanager
def started(start: Start, plan: Plan) -> Iterator[tuple[Side, Place, RequestCount]]:
    """A running side, where it listens, and the count of its JetStream requests."""
    with tempfile.TemporaryDirectory(prefix="fanline-bench-", ignore_cleanup_errors=True) as name, ExitStack() as stack:
        side = stack.enter_context(start(plan, Path(name)))
        requests = stack.enter_context(closing(RequestCount(side.nats, side.token, plan.namespace)))
        yield side, Place(int(str(side.receiver["port"])), str(side.receiver["path"])), requests


def _resume_figures(crowd: Crowd, plan: Plan, killed: float, asked: dict[str, int], memory: int) -> ResumeFigures:
    """Of those who came back, when; who never did counts as lost."""
    people = crowd.subscribers
    back = [each.times[-1] - killed for each in people if len(each.times) > 1]
    half, most, last = ranks(back, (0.5, 0.95, 1.0))
    return ResumeFigures(**crowd_counts(crowd, plan, asked, memory), cut_off=len(back), half=half, most=most, last=last)


def crowd_counts(crowd: Crowd, plan: Plan, asked: dict[str, int], memory: int) -> dict[str, Any]:
    """What is counted of every crowd. What has not come by now counts as lost."""
    people = crowd.subscribers
    lost = sum(each.missing + plan.expected - each.next for each in people)
    return {
        "subscribers": plan.subscribers,
        "channels": plan.channels,
        "deliveries": plan.subscribers * plan.expected - lost,
        "lost": lost,
        "duplicated": sum(each.repeated for each in people),
        "requests": sum(asked.values()),
        "requests_by_kind": asked,
        "peak_kb": memory,
        "gaps": sum(each.gaps for each in people),
    }


def ranks(values: Sequence[float], shares: Sequence[float]) -> list[float]:
    """The smallest value at or below which each share (0 to 1) of the values lies. BenchError if there are none."""
    if not values:
        raise BenchError("nobody was on the killed worker: take more --subscribers")
    ordered = sorted(values)
    return [ordered[max(0, -int(-share * len(ordered) // 1) - 1)] for share in shares]


def _join(place: Place, plan: Plan, number: int) -> tuple[float, list[int]]:
    """Join from the start: the seconds until the last message of the history, and the numbers of all that came."""
    channel = plan.channel % (number % plan.channels)
    with socket.create_connection(("127.0.0.1", place.port), PATIENCE_SECONDS) as link:
        link.sendall(upgrade(place))
        data = b""
        while b'"t":"welcome"' not in data:
            data += _receive(link)
        last = b"@@%08d" % (plan.expected - 1)
        chunks, tail = [], b""
        begun = time.perf_counter()
        say(link, Opcode.TEXT, encode_json(Envelope(MessageType.SUB, channel=channel, id="join", offset=0)))
        while last not in tail:
            chunks.append(_receive(link))
            tail = tail[-_STAMP_BYTES:] + chunks[-1]
        seconds = time.perf_counter() - begun
    frames = FrameReader(1 << 24, from_client=False).feed(b"".join(chunks))
    told = [decode_json(frame.payload) for frame in frames if frame.opcode is Opcode.TEXT]
    return seconds, [int(str(envelope.value)[2:10]) for envelope in told if envelope.type == MessageType.PUB]


def _receive(link: socket.socket) -> bytes:
    try:
        data = link.recv(_READ_BYTES)
    except TimeoutError:
        raise BenchError(f"the history did not end within {PATIENCE_SECONDS:g} s") from None
    if not data:
        raise BenchError("the server closed a connection that joins")
    return data


def _count(joins: Sequence[Sequence[int]], expected: int) -> tuple[int, int]:
    """How many messages are missing, and how many came twice or out of order."""
    lost = sum(expected - len({*numbers}) for numbers in joins)
    wrong = sum(later <= earlier for numbers in joins for earlier, later in itertools.pairwise(numbers))
    return lost, wrong
