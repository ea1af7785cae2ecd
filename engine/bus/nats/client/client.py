"""A NATS client on Trio: one task reads and hands every whole message of a read to its sink, one writes in batches.

What a caller does (`send`, `subscribe`, ...) is synchronous: commands are queued, and one write carries those of a pass
of the scheduler. Messages reach their sinks from the reading task, with no task switch in between.

A connection that is lost is replaced by one to the next server of the pool, with all subscriptions. Commands are not
kept for it, because it is unknown which of them took effect. The owner learns at once that a connection has ended, and
that the next one is open.
"""

import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NoReturn

import trio

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.nats.client.confirmation import Confirmation
from fanline.engine.bus.nats.client.wire import Wire, open_wire
from fanline.protocol.nats.addresses import NatsAddress, ServerPool, parse_url
from fanline.protocol.nats.commands import subscribe, unsubscribe
from fanline.protocol.nats.connection import DEAD_TICKS, TICK_SECONDS, NatsConnection, NatsSubscriptions, Sink
from fanline.protocol.nats.options import NatsOptions
from fanline.protocol.nats.parser import NatsError
from fanline.protocol.nats.replies import Complaint, ServerInfo

START_SECONDS = 5.0
"""How long a worker waits for NATS at first, which may be starting at the same time."""
DRAIN_SECONDS = 0.3
"""Part of the time that the supervisor allows a worker beyond its drain timeout: NATS may be frozen."""
ROOM_BYTES = 8 * 1024 * 1024
"""Publications wait while this many bytes are queued."""
ROOM_SECONDS = 5.0
"""How long a publication waits for room."""
_FIRST_DELAY, _LONGEST_DELAY = 0.05, 1.0  # seconds between two rounds over all servers
_STABLE_SECONDS = 1.0  # a connection that ends sooner may have ended for a reason that the next one meets, too
_log = logging.getLogger("fanline.bus")


class NatsClient:
    """`on_open` is called for every connection but the first, when its subscriptions are queued; `on_lost` when one has
    ended; `on_complaint` with what the server denies. All are synchronous.
    """

    def __init__(
        self,
        options: NatsOptions,
        name: str,
        *,
        on_open: Callable[[], None],
        on_lost: Callable[[], None],
        on_complaint: Callable[[Complaint], None],
    ) -> None:
        self._options = options
        self._name = name
        self._on_open = on_open
        self._on_lost = on_lost
        self._on_complaint = on_complaint
        self.after_read: Callable[[], None] = lambda: None
        """Called when all messages of a read have been handed to their sinks."""
        self._pool = ServerPool([parse_url(url) for url in options.servers])
        self._subscriptions = NatsSubscriptions()
        self._wire: Wire | None = None
        self._connection: NatsConnection | None = None
        self._work = trio.Event()
        self._entrance = trio.Lock()  # held by the first of those who wait for room
        self._written = trio.Event()
        self._gathering: Confirmation | None = None
        self._asked: deque[Confirmation] = deque()
        self._ticked = deque[float](maxlen=DEAD_TICKS + 1)  # Unix times
        self._random = random.Random()  # noqa: S311  # spreads reconnects, keeps no secret

    @property
    def connected(self) -> bool:
        return self._connection is not None

    @property
    def info(self) -> ServerInfo:
        """What the server says about itself. BusError if there is no connection."""
        return self._open_connection().info

    @property
    def unsent_bytes(self) -> int:
        """Bytes that wait to be written."""
        return 0 if self._connection is None else self._connection.unsent_bytes

    @property
    def sound_until(self) -> float:
        """Unix time up to which the newest connection, which may have ended, is known to have lost nothing. A process
        that was frozen itself has not ticked meanwhile.
        """
        return self._ticked[0]

    # --- commands, synchronous ------------------------------------------------------------------------------------

    def send(self, command: bytes) -> None:
        """Queue a whole command. BusError if there is no connection."""
        self._open_connection().send(command)

    async def wait_room(self, size: int) -> None:
        """Wait until there is room in the queue for `size` bytes, in the order of the calls; returns without a
        checkpoint if there is. BusError if there is none for ROOM_SECONDS.
        """
        if not self._entrance.locked() and self.has_room(size):
            return
        with trio.move_on_after(ROOM_SECONDS):
            async with self._entrance:
                while not self.has_room(size):
                    await self._written.wait()
                return
        raise BusError("NATS does not keep up; nothing was done")

    def has_room(self, size: int) -> bool:
        """Whether a publication of `size` bytes would not have to wait."""
        unsent = self.unsent_bytes
        return not unsent or unsent + size <= ROOM_BYTES

    def _tell_of_room(self) -> None:
        if self._entrance.locked():
            self._written.set()
            self._written = trio.Event()

    def subscribe(self, subject: str, sink: Sink, queue: str = "") -> int:
        """Subscribe now, and on every connection to come; returns the number to unsubscribe with."""
        sid = self._subscriptions.add(subject, sink, queue)
        if self._connection is not None:
            self._connection.send(subscribe(subject, sid, queue))
        return sid

    def redirect(self, sid: int, sink: Sink) -> None:
        """Have another sink called for a subscription from now on."""
        self._subscriptions.redirect(sid, sink)

    def unsubscribe(self, sid: int) -> None:
        self._subscriptions.remove(sid)
        if self._connection is not None:
            self._connection.send(unsubscribe(sid))

    def confirmation(self) -> Confirmation:
        """What confirms everything that was queued before, shared by the callers of one pass. BusError if there is no
        connection.
        """
        connection = self._open_connection()
        if self._gathering is None:
            self._gathering = Confirmation()
            connection.send(b"")  # wakes the writer, which asks for it behind all commands of this pass
        return self._gathering

    def _open_connection(self) -> NatsConnection:
        if self._connection is None:
            raise BusError("NATS is not connected; nothing was done")
        return self._connection

    # --- life -----------------------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Open the first connection. BusError with the last error of each server after START_SECONDS."""
        failures: dict[NatsAddress, str] = {}
        with trio.move_on_after(START_SECONDS):
            return self._begin(await self._next_wire(failures))
        raise BusError("; ".join(failures.values()) or f"no NATS server answered within {START_SECONDS:g} seconds")

    async def run(self) -> NoReturn:
        """Serve the connection that `connect` has opened, and every one after it, forever."""
        delay = 0.0
        while True:
            began = trio.current_time()
            try:
                await self._serve()
            except BusError as error:
                _log.warning("NATS connection lost (%s), reconnecting", error)
            self._on_lost()
            delay = await self._rest(delay) if trio.current_time() < began + _STABLE_SECONDS else 0.0
            self._begin(await self._next_wire({}))
            self.send(self._subscriptions.commands())
            self._on_open()

    async def drain(self) -> None:
        """Unsubscribe, and wait until the server has everything that was sent, for DRAIN_SECONDS at most."""
        with trio.move_on_after(DRAIN_SECONDS, shield=True), suppress(BusError):
            for sid in list(self._subscriptions.by_sid):
                self.unsubscribe(sid)
            await self.confirmation().wait()

    def _begin(self, wire: Wire) -> None:
        self._pool.tell(wire.info.connect_urls)
        self._wire, self._work = wire, trio.Event()
        self._ticked.clear()
        self._ticked.append(time.time())
        self._connection = NatsConnection(
            wire.info,
            wire.parser,
            self._subscriptions,
            on_work=lambda: self._work.set(),
            on_complaint=self._take_complaint,
        )

    async def _next_wire(self, failures: dict[NatsAddress, str]) -> Wire:
        """The wire to the first server that accepts us; `failures` gets the errors of the others."""
        delay, tried = _FIRST_DELAY, 0
        while True:
            address = self._pool.next()
            try:
                return await open_wire(address, self._options, self._name)
            except BusError as error:
                failures[address] = str(error)
                _log.debug("%s", error)
            tried += 1
            if tried % len(self._pool) == 0:  # rest after each round
                delay = await self._rest(delay)

    async def _rest(self, delay: float) -> float:
        """Wait about this long, every worker for a time of its own. Returns the next delay."""
        await trio.sleep(self._random.uniform(delay / 2, delay))
        return min(max(2 * delay, _FIRST_DELAY), _LONGEST_DELAY)

    # --- one connection -------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        """Carry the connection until it ends, which raises BusError."""
        assert self._wire is not None
        assert self._connection is not None
        wire, connection, failures = self._wire, self._connection, list[BusError]()
        try:
            async with trio.open_nursery() as nursery:
                for carry in (self._read, self._write, self._watch):
                    nursery.start_soon(_until_failure, carry, wire, connection, failures, nursery.cancel_scope)
        finally:
            self._end(wire, connection)
        raise failures[0]

    async def _read(self, wire: Wire, connection: NatsConnection) -> NoReturn:
        info = connection.info
        while True:
            data = await wire.read()
            try:
                connection.receive(data)
            finally:  # the messages before a server's last words have reached their sinks, too
                self.after_read()
            if connection.info is not info:
                info = connection.info
                self._pool.tell(info.connect_urls)
                if info.ldm and len(self._pool) > 1:
                    raise BusError("the server is about to stop")

    async def _write(self, wire: Wire, connection: NatsConnection) -> NoReturn:
        while True:
            await self._work.wait()
            self._work = trio.Event()
            if self._gathering is not None:
                self._ask(connection, self._gathering)
            data = connection.take_output()
            await wire.write(data)
            connection.written(len(data))
            self._tell_of_room()

    async def _watch(self, wire: Wire, connection: NatsConnection) -> NoReturn:
        while True:
            await trio.sleep(TICK_SECONDS)
            self._ticked.append(time.time())
            connection.tick()

    def _ask(self, connection: NatsConnection, confirmation: Confirmation) -> None:
        self._gathering = None
        self._asked.append(confirmation)

        def done(error: NatsError | None) -> None:
            self._asked.popleft().finish(None if error is None else str(error))

        connection.confirm(done)

    def _take_complaint(self, complaint: Complaint) -> None:
        # The server works in order: this is about a command before the oldest PING that it has not answered.
        if self._asked:
            self._asked[0].deny(complaint)
        self._on_complaint(complaint)

    def _end(self, wire: Wire, connection: NatsConnection) -> None:
        self._wire = self._connection = None
        wire.close()
        if self._gathering is not None:
            self._ask(connection, self._gathering)
        connection.close(NatsError("NATS went away; it may have been done"))
        self._tell_of_room()


async def _until_failure(
    carry: Callable[[Wire, NatsConnection], Awaitable[None]],
    wire: Wire,
    connection: NatsConnection,
    failures: list[BusError],
    scope: trio.CancelScope,
) -> None:
    try:
        await carry(wire, connection)
    except (BusError, NatsError) as error:
        failures.append(BusError(str(error)))
        scope.cancel()
