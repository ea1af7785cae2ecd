"""Load users for locust: `Viewer` subscribes over WebSocket and times every delivery, `Publisher` publishes over NATS.

    locust -f loadtest/locustfile.py --headless -u 20 -r 20 -t 5s

A message that is lost, repeated or out of order is a failed request, and so shows in the exit code. The server is a
running `fanline serve` of this machine, or the one named by --fanline-url and --fanline-nats (FANLINE_LOAD_URL,
FANLINE_LOAD_NATS).
"""

import random
import sys
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import msgspec
from locust import User, constant_throughput, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from fanline.loadtest.ledger import Ledger
from fanline.loadtest.load_publisher import LoadPublisher
from fanline.loadtest.target import Target, TargetError, find_target
from fanline.loadtest.websocket_client import WebSocket, WebSocketError
from fanline.protocol.dialects import BY_SUBPROTOCOL
from fanline.protocol.envelope import Envelope, MessageType, decode_cbor, decode_json, encode_json
from fanline.protocol.errors import MessageError
from fanline.protocol.nats.parser import NatsError
from fanline.protocol.nats.subjects import to_subject
from fanline.protocol.websocket.frames import Opcode

TIMEOUT_SECONDS = 10.0
LAST_MESSAGES_SECONDS = 3.0
MAX_BACKOFF_SECONDS = 10.0

_DECODERS: dict[Opcode, Callable[[bytes], Envelope]] = {Opcode.TEXT: decode_json, Opcode.BINARY: decode_cbor}

published: defaultdict[str, Counter[str]] = defaultdict(Counter)
"""Channel -> publisher of this process -> number of messages handed to NATS."""

_target: list[Target] = []  # filled once locust has read its options


class Stamp(msgspec.Struct, frozen=True):
    """The data of one load message."""

    publisher: str
    sequence: int
    sent: int
    """Unix nanoseconds."""


class MessagesLostError(Exception):
    """Messages that a viewer should have received did not come, or came twice or out of order."""


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]  # locust does not annotate it
def _add_arguments(parser: LocustArgumentParser) -> None:
    parser.add_argument("--fanline-url", default="", env_var="FANLINE_LOAD_URL", help="WebSocket endpoint")
    parser.add_argument("--fanline-nats", default="", env_var="FANLINE_LOAD_NATS", help="NATS URL", is_secret=True)
    parser.add_argument("--fanline-codec", default="json", choices=("json", "cbor"), help="codec of the viewers")
    parser.add_argument("--fanline-channels", default=1, type=int, help="how many channels the users are spread over")


@events.init.add_listener  # type: ignore[untyped-decorator]  # locust does not annotate it
def _find_target(environment: Environment, **_: Any) -> None:
    options = environment.parsed_options
    if options is None:
        return
    try:
        _target[:] = [find_target(options.fanline_url, options.fanline_nats)]
    except TargetError as error:
        sys.exit(f"locust: {error}")


class _LoadUser(User):
    abstract = True
    failed_attempts = 0

    def on_start(self) -> None:
        self.channel = f"load:{random.randrange(self.options.fanline_channels)}"  # noqa: S311  # load, not secrets

    @property
    def options(self) -> Any:
        return self.environment.parsed_options

    def report(self, kind: str, name: str, milliseconds: float, size: int = 0, error: Exception | None = None) -> None:
        """One line of locust's statistics; `error` makes it a failure."""
        self.environment.events.request.fire(
            request_type=kind,
            name=name,
            response_time=milliseconds,
            response_length=size,
            exception=error,
            context=self.context(),
        )

    def back_off(self) -> None:
        """Wait with full jitter, so that not all users meet a server at once when it comes back."""
        self.failed_attempts += 1
        time.sleep(random.uniform(0, min(MAX_BACKOFF_SECONDS, 0.25 * 2**self.failed_attempts)))  # noqa: S311  # as above


class Viewer(_LoadUser):
    """Holds one subscription and reports each message with its latency from publish to receipt, in ms."""

    weight = 4
    socket: WebSocket | None = None
    ledger: Ledger | None = None  # None until the subscription is answered

    @task
    def view(self) -> None:
        """Read for at most a second, so that a ramp-down need not wait; reopen a lost connection."""
        try:
            if self.socket is None:
                self._subscribe()
            else:
                self._receive(self.socket, 1.0)
        except (WebSocketError, MessageError) as error:
            self.report("WS", "connection", 0, error=error)
            self._close()
            self.back_off()

    def on_stop(self) -> None:
        if self.socket and self.ledger:
            self._await_last_messages(self.socket, self.ledger)
        self._close()

    def _await_last_messages(self, socket: WebSocket, ledger: Ledger) -> None:
        """Wait for what was published up to now."""
        wanted = Counter(published[self.channel])
        deadline = time.monotonic() + LAST_MESSAGES_SECONDS
        try:
            while ledger.missing(wanted) and (left := deadline - time.monotonic()) > 0:
                self._receive(socket, left)
        except (WebSocketError, MessageError) as error:
            self.report("WS", "connection", 0, error=error)
        if missing := ledger.missing(wanted):
            self._report_lost(f"{missing} messages lost at the end")

    def _subscribe(self) -> None:
        start = time.perf_counter()
        subprotocol = f"fanline.v1.{self.options.fanline_codec}"
        dialect = BY_SUBPROTOCOL[subprotocol]
        self.socket = WebSocket(_target[0].url, subprotocol, TIMEOUT_SECONDS)
        command = Envelope(type=MessageType.SUB, channel=self.channel, id="sub")
        self.socket.send(dialect.opcode, dialect.encode(command))
        while self.ledger is None:
            if not self._receive(self.socket, TIMEOUT_SECONDS):
                raise WebSocketError("no answer to the subscription")
        self.failed_attempts = 0
        self.report("WS", "connect and subscribe", (time.perf_counter() - start) * 1000)

    def _receive(self, socket: WebSocket, timeout: float) -> bool:
        """Take what comes within `timeout` seconds. Returns False if nothing came."""
        messages = socket.receive(timeout)
        for message in messages:
            envelope = _DECODERS[message.opcode](message.payload)
            if envelope.id == "sub":
                self._take_answer(envelope)
            elif envelope.type == MessageType.PUB and self.ledger:
                self._note(envelope, self.ledger, len(message.payload))
        return bool(messages)

    def _take_answer(self, answer: Envelope) -> None:
        if answer.type != MessageType.OK:
            raise WebSocketError(f"subscription refused: {answer.value}")
        self.ledger = Ledger(published[self.channel])

    def _note(self, envelope: Envelope, ledger: Ledger, size: int) -> None:
        try:
            stamp = msgspec.convert(envelope.value, Stamp)
        except msgspec.ValidationError:  # not from a load user: another program publishes on this channel
            return
        self.report("WS", "message", (time.time_ns() - stamp.sent) / 1e6, size)
        missing = ledger.note(stamp.publisher, stamp.sequence, local=stamp.publisher in published[self.channel])
        if missing > 0:
            self._report_lost(f"{missing} messages lost")
        elif missing < 0:
            self._report_lost("a message came twice or out of order")

    def _report_lost(self, sentence: str) -> None:
        self.report("WS", "lost messages", 0, error=MessagesLostError(sentence))

    def _close(self) -> None:
        if self.socket:
            self.socket.close()
        self.socket = self.ledger = None


class Publisher(_LoadUser):
    """Publishes 10 numbered messages a second on one channel."""

    weight = 1
    wait_time = constant_throughput(10)
    connection: LoadPublisher | None = None
    name = ""  # new for each connection: it is unknown how many messages of a lost connection arrived

    @task
    def publish(self) -> None:
        start = time.perf_counter()
        try:
            if self.connection is None:
                self.connection = LoadPublisher(_target[0].nats, TIMEOUT_SECONDS)
                self.name = uuid.uuid4().hex
                self.failed_attempts = 0
            size = self._publish(self.connection)
        except NatsError as error:
            self._give_up(error)
            self.back_off()
        else:
            self.report("NATS", "publish", (time.perf_counter() - start) * 1000, size)

    def on_stop(self) -> None:
        if self.connection is None:
            return
        try:
            self.connection.flush()
        except NatsError as error:
            self._give_up(error)
        else:
            self.connection.close()

    def _publish(self, connection: LoadPublisher) -> int:
        """Publish one message. Returns its size in bytes."""
        sent = published[self.channel]
        stamp = Stamp(self.name, sent[self.name], time.time_ns())
        payload = encode_json(Envelope(event="load", data=stamp))
        sent[self.name] += 1
        try:
            connection.publish(to_subject(self.channel), payload)
        except BaseException:  # even a kill: it is unknown whether the message left, so no viewer must expect it
            del sent[self.name]
            raise
        return len(payload)

    def _give_up(self, error: NatsError) -> None:
        self.report("NATS", "publish", 0, error=error)
        published[self.channel].pop(self.name, None)
        if self.connection:
            self.connection.close()
        self.connection = None
