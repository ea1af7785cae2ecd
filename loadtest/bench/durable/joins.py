"""The join bench: joining a durable channel from the start of its history, one join after the other."""

import itertools
import socket
import time
from collections.abc import Sequence

from fanline.loadtest.bench.durable.figures import PATIENCE_SECONDS, DurableFigures, ranks, started
from fanline.loadtest.bench.durable.subscriber_pool import Endpoint, SubscriberPool, send_message, upgrade_request
from fanline.loadtest.bench.errors import BenchError
from fanline.loadtest.bench.machine import cpu_seconds, resident_kb
from fanline.loadtest.bench.plan import Plan
from fanline.loadtest.bench.server import StartSide
from fanline.protocol.envelope import Envelope, MessageType, decode_json, encode_json
from fanline.protocol.websocket.frames import FrameReader, Opcode

SETTLE_SECONDS = 1.0
_READ_BYTES = 1 << 20
_STAMP_BYTES = 32  # a little more than the stamp of native/common.h


class JoinFigures(DurableFigures, frozen=True, kw_only=True):
    """Milliseconds from `sub` to the last message of the history, on a channel that others are subscribed to."""

    alone: float
    """Median on a channel without other subscribers: the worker has to ask the stream for everything."""
    p50: float
    p90: float
    p99: float
    max: float
    cpu_us_per_join: float


def measure_joins(start: StartSide, plan: Plan) -> JoinFigures:
    """Store the plan's messages, then join from their start, again and again. Raises BenchError."""
    with started(start, plan) as (side, endpoint, requests):
        for publisher in side.publishers:
            publisher.send("go")
            publisher.read(PATIENCE_SECONDS)
        time.sleep(SETTLE_SECONDS)  # NATS has the messages, but the stream is still storing them
        alone = [_join(endpoint, plan, number) for number in range(max(1, plan.subscribers // 10))]
        with SubscriberPool(endpoint, [plan.channel % number for number in range(plan.channels)]) as others:
            others.connect(others.subscribers)
            others.run(PATIENCE_SECONDS, lambda: others.all_live)
            _join(endpoint, plan, 0)  # makes the worker read the history, which all later joins then share
            requests.counts()
            cpu = cpu_seconds(side.pids)
            joins = [_join(endpoint, plan, number) for number in range(plan.subscribers)]
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


def _join(endpoint: Endpoint, plan: Plan, number: int) -> tuple[float, list[int]]:
    """Join from the start: the seconds until the last message of the history, and the numbers of all that arrived."""
    channel = plan.channel % (number % plan.channels)
    with socket.create_connection(("127.0.0.1", endpoint.port), PATIENCE_SECONDS) as connection:
        connection.sendall(upgrade_request(endpoint))
        data = b""
        while b'"t":"welcome"' not in data:
            data += _receive(connection)
        last = b"@@%08d" % (plan.expected - 1)
        chunks, tail = [], b""
        begun = time.perf_counter()
        command = Envelope(MessageType.SUB, channel=channel, id="join", offset=0)
        send_message(connection, Opcode.TEXT, encode_json(command))
        while last not in tail:
            chunks.append(_receive(connection))
            tail = tail[-_STAMP_BYTES:] + chunks[-1]
        seconds = time.perf_counter() - begun
    frames = FrameReader(1 << 24, from_client=False).feed(b"".join(chunks))
    received = [decode_json(frame.payload) for frame in frames if frame.opcode is Opcode.TEXT]
    return seconds, [int(str(envelope.value)[2:10]) for envelope in received if envelope.type == MessageType.PUB]


def _receive(connection: socket.socket) -> bytes:
    try:
        data = connection.recv(_READ_BYTES)
    except TimeoutError:
        raise BenchError(f"the history did not end within {PATIENCE_SECONDS:g} s") from None
    if not data:
        raise BenchError("the server closed a connection during a join")
    return data


def _count(joins: Sequence[Sequence[int]], expected: int) -> tuple[int, int]:
    """How many messages are missing, and how many arrived twice or out of order."""
    lost = sum(expected - len({*numbers}) for numbers in joins)
    wrong = sum(later <= earlier for numbers in joins for earlier, later in itertools.pairwise(numbers))
    return lost, wrong
