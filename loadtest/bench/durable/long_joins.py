"""The long-joins bench: several clients join a long history at once over CBOR, while another client gets live messages.

The worker has to convert every message from JSON to CBOR. What matters is how long the other client's messages take
meanwhile, and how much memory the worker needs.
"""

import re
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from urllib.parse import urlsplit

from fanline.loadtest.bench.durable.figures import PATIENCE_SECONDS, DurableFigures, ranks, started
from fanline.loadtest.bench.durable.joins import SETTLE_SECONDS
from fanline.loadtest.bench.durable.subscriber_pool import Endpoint, send_message, upgrade_request
from fanline.loadtest.bench.errors import BenchError
from fanline.loadtest.bench.machine import cpu_seconds, resident_kb
from fanline.loadtest.bench.plan import NAMESPACE, LongJoinsPlan, Plan
from fanline.loadtest.bench.server import Side, StartSide
from fanline.protocol.dialects import CBOR, JSON, Dialect
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.nats.commands import PING, PONG, hello, publish
from fanline.protocol.nats.replies import ServerInfo
from fanline.protocol.nats.subjects import to_subject

_LIVE = f"{NAMESPACE}:live"
_EVERY_SECONDS = 0.01
_READ_BYTES = 1 << 20
_NUMBER = re.compile(rb"@@(\d{8})")
_NUMBER_BYTES = 10
_ACKNOWLEDGED_EVERY = 50  # messages to NATS


class LongJoinsFigures(DurableFigures, frozen=True, kw_only=True):
    """Milliseconds that a live message of another channel took, from its publication, while the histories were sent."""

    p50: float
    p99: float
    max: float
    live: int
    """Live messages measured."""
    joined: float
    """Seconds until the last client had all of its history."""
    cpu_seconds: float


class _Joiner:
    """One client that joins a long history."""

    def __init__(self, connection: socket.socket, expected: int) -> None:
        self.connection = connection
        self.numbers: list[int] = []
        self.expected = expected
        self._rest = b""

    @property
    def done(self) -> bool:
        return bool(self.numbers) and self.numbers[-1] == self.expected - 1

    def read(self) -> None:
        data = self._rest + _receive(self.connection)
        self.numbers += map(int, _NUMBER.findall(data))
        self._rest = data[-_NUMBER_BYTES + 1 :]


class _Viewer:
    """One client of the live channel. A message says when it was published."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.seconds: list[float] = []
        self._rest = b""

    def read(self) -> None:
        self._rest += _receive(self.connection)
        for sent in re.findall(rb"@@(\d+)@@", self._rest):
            self.seconds.append((time.monotonic_ns() - int(sent)) / 1e9)
        self._rest = self._rest[self._rest.rfind(b"@@") + 2 :]


def measure_long_joins(start: StartSide, plan: Plan) -> LongJoinsFigures:
    """Store a long history, then have all subscribers join it at once. Raises BenchError."""
    assert isinstance(plan, LongJoinsPlan)
    with started(start, plan) as (side, endpoint, requests), ExitStack() as stack:
        nats = stack.enter_context(_nats(side))
        _store_history(nats, plan)
        viewer = _Viewer(stack.enter_context(_connected(endpoint, JSON)))
        _say(viewer.connection, JSON, Envelope(MessageType.SUB, channel=_LIVE, id="live"))
        joiners = [
            _Joiner(stack.enter_context(_connected(endpoint, CBOR)), plan.expected) for _ in range(plan.subscribers)
        ]
        requests.counts()
        cpu, begun = cpu_seconds(side.pids), time.monotonic()
        for joiner in joiners:
            _say(joiner.connection, CBOR, Envelope(MessageType.SUB, channel=plan.channel % 0, id="join", offset=0))
        _serve(nats, viewer, joiners)
        joined, asked = time.monotonic() - begun, requests.counts()
        cpu, memory = cpu_seconds(side.pids) - cpu, resident_kb(side.pids, "VmHWM")
    numbers = [joiner.numbers for joiner in joiners]
    p50, p99, most = ranks([seconds * 1000 for seconds in viewer.seconds], (0.5, 0.99, 1.0))
    return LongJoinsFigures(
        subscribers=plan.subscribers,
        channels=1,
        deliveries=sum(map(len, numbers)),
        lost=sum(plan.expected - len({*each}) for each in numbers),
        duplicated=sum(len(each) - len({*each}) for each in numbers),
        requests=sum(asked.values()),
        requests_by_kind=asked,
        peak_kb=memory,
        p50=p50,
        p99=p99,
        max=most,
        live=len(viewer.seconds),
        joined=joined,
        cpu_seconds=cpu,
    )


def _serve(nats: socket.socket, viewer: _Viewer, joiners: list[_Joiner]) -> None:
    """Publish live messages and read everything until all joiners are done."""
    readers: list[_Viewer | _Joiner] = [viewer, *joiners]
    by_file = {each.connection.fileno(): each for each in readers}
    poll = select.poll()
    for file in by_file:
        poll.register(file, select.POLLIN)
    deadline, due = time.monotonic() + PATIENCE_SECONDS, time.monotonic()
    while not all(joiner.done for joiner in joiners):
        now = time.monotonic()
        if now > deadline:
            raise BenchError(f"the histories did not end within {PATIENCE_SECONDS:g} s")
        if now >= due:
            due = now + _EVERY_SECONDS
            nats.sendall(publish(to_subject(_LIVE), b'"@@%d@@"' % time.monotonic_ns()))
        for file, _ in poll.poll(max(0.0, due - now) * 1000):
            by_file[file].read()


@contextmanager
def _connected(endpoint: Endpoint, dialect: Dialect) -> Iterator[socket.socket]:
    """A client that has been welcomed."""
    with socket.create_connection(("127.0.0.1", endpoint.port), PATIENCE_SECONDS) as connection:
        connection.sendall(upgrade_request(endpoint, f"fanline.v1.{dialect.name}"))
        data = b""
        while b"welcome" not in data:
            data += _receive(connection)
        yield connection


@contextmanager
def _nats(side: Side) -> Iterator[socket.socket]:
    where = urlsplit(side.nats)
    with closing(socket.create_connection((where.hostname, where.port), PATIENCE_SECONDS)) as nats:
        nats.sendall(hello(ServerInfo(), side.login, name="bench", tls=False))
        _wait_pong(nats)
        yield nats


def _store_history(nats: socket.socket, plan: LongJoinsPlan) -> None:
    """Publish the history at the pace of NATS."""
    for number in range(plan.expected):
        nats.sendall(publish(plan.subject % 0, plan.message(number)))
        if number % _ACKNOWLEDGED_EVERY == _ACKNOWLEDGED_EVERY - 1:
            nats.sendall(PING)
            _wait_pong(nats)
    nats.sendall(PING)
    _wait_pong(nats)
    time.sleep(SETTLE_SECONDS)  # NATS has the messages, but the stream is still storing them


def _wait_pong(nats: socket.socket) -> None:
    data = b""
    while PONG not in data:
        data += nats.recv(_READ_BYTES)
        if b"PING\r\n" in data:
            nats.sendall(PONG)


def _say(connection: socket.socket, dialect: Dialect, envelope: Envelope) -> None:
    send_message(connection, dialect.opcode, dialect.encode(envelope))


def _receive(connection: socket.socket) -> bytes:
    try:
        data = connection.recv(_READ_BYTES)
    except (TimeoutError, ConnectionError):
        data = b""
    if not data:
        raise BenchError("the server closed a connection, or its worker ended")
    return data
