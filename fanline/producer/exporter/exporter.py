"""The courier: one thread of the process per NATS, which sends what its tasks say and hears what is said to them.

It begins with the first task and ends after the last. A job only ever puts something into a buffer, so neither a slow
network nor a busy event loop of the job's matters to the other. A forked process begins with couriers of its own.
"""

import atexit
import encodings.idna  # noqa: F401  # else a thread imports it, and a fork at that moment gets half a module
import logging
import multiprocessing.util
import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio

from fanline.backoff import Backoff
from fanline.errors import FanlineError
from fanline.local import find_server, nats_address
from fanline.nats.connection import open_nats
from fanline.producer.exporter.connection import Link
from fanline.producer.exporter.publisher import Delivery
from fanline.producer.producer import Producer
from fanline.protocol.nats.client_protocol import NatsAddress, NatsError, parse_url

STABLE_SECONDS = 5.0
"""A connection that held for so long was no failure: whatever comes next is an outage of its own."""
HOPELESS_SECONDS = 0.5
"""How long a task without any server lingers: nobody need wait for one that was never there."""
_log = logging.getLogger("fanline")
_couriers: dict[str | None, "Courier"] = {}
_lock = threading.Lock()  # of _couriers, and of who belongs to which


def send_out(producer: Producer) -> None:
    """Have what this producer says sent, from now on until it has ended."""
    with _lock:
        courier = _couriers.get(producer.settings.nats)
        if courier is None or courier.over:
            courier = _couriers[producer.settings.nats] = Courier(producer.settings.nats)
        courier.add(producer)


class Courier:
    """All tasks of this process that go to one NATS. `nats`: its URL; None: of the server on this machine."""

    def __init__(self, nats: str | None) -> None:
        self._nats = nats
        self._producers: set[Producer] = set()  # guarded by _lock
        self._deliveries: dict[Producer, Delivery] = {}  # the rest belongs to the courier's thread
        self._lingering: set[Delivery] = set()
        self._link: Link | None = None
        self._away: str | None = None  # why there is no connection; None before the first attempt
        self._warned = False
        self._reached = False  # ever
        self.over = False
        """It sends nothing any more, or never did."""
        self._token: trio.lowlevel.TrioToken | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._work, name="fanline courier", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # no more threads, or the interpreter ends
            self.over = True
            _log.error("the tasks of this process are not sent: %s", error)
        else:
            self._ready.wait()

    # --- called from any thread ----------------------------------------------------------------------------------

    def add(self, producer: Producer) -> None:
        """To be called with the lock held, so that the courier does not end just now."""
        self._producers.add(producer)
        producer.attach(lambda: self._soon(self._wake, producer))
        self._soon(self._take_in, producer)
        if self.over:
            producer.settle()

    def reply(self, subject: str, payload: bytes) -> None:
        """Answer a call."""
        self._soon(self._publish, subject, payload)

    def finish(self) -> None:
        """The program ends: store what there is, as long as the tasks linger."""
        with _lock:
            linger = max((self._patience(producer) for producer in self._producers), default=0.0)
        self._soon(self._abandon_all)
        if self._thread.is_alive():
            self._thread.join(linger + 1.0)

    def _patience(self, producer: Producer) -> float:
        linger = producer.settings.linger
        return linger if self._reached else min(linger, HOPELESS_SECONDS)

    def _soon(self, call: Callable[..., None], *args: object) -> None:
        if self._token is None:  # it never came to life
            return
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(call, *args)

    # --- the thread ----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            trio.run(self._main)
        except Exception as error:  # noqa: BLE001  # the job must not suffer from a mistake in here
            _log.error("the tasks of this process are no longer sent: %r", error)
        finally:
            self.over = True
            self._ready.set()  # before the lock: who holds it waits for us
            with _lock:
                if _couriers.get(self._nats) is self:
                    del _couriers[self._nats]
                for producer in self._producers:
                    producer.settle()

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as self._nursery:
            self._ready.set()
            await self._stay_connected()

    async def _stay_connected(self) -> None:
        backoff = Backoff(base=0.1, cap=5.0)
        while True:
            begun = trio.current_time()
            try:
                async with open_nats(self._address()) as client:
                    await self._use(Link(client))
            except (NatsError, FanlineError, OSError) as error:
                if self._away is None and trio.current_time() - begun > STABLE_SECONDS:
                    backoff.reset()
                    self._warned = False
                self._lose(str(error))
            await trio.sleep(backoff.next_delay())

    def _address(self) -> NatsAddress:
        """Looked for anew each time: a server that was started again has another port and token."""
        return nats_address(find_server()) if self._nats is None else parse_url(self._nats)

    async def _use(self, link: Link) -> None:
        """Deliver over a connection until it is lost: raises NatsError."""
        reasons: list[NatsError] = []

        async def move(work: Callable[[], Awaitable[None]]) -> None:
            try:
                await work()
            except NatsError as error:
                reasons.append(error)
                nursery.cancel_scope.cancel()

        if self._warned:
            _log.info("NATS is there again: task events are sent")
        self._away, self._reached = None, True
        try:
            async with trio.open_nursery() as nursery:
                self._link, self._link_nursery = link, nursery
                for work in (link.read, link.write, link.watch):
                    nursery.start_soon(move, work)
                for delivery in list(self._deliveries.values()):
                    nursery.start_soon(self._deliver, delivery, link)
        finally:
            self._link = None
        raise reasons[0]

    async def _deliver(self, delivery: Delivery, link: Link) -> None:
        await delivery.run(link)
        if delivery.over.is_set():
            self._forget(delivery)

    async def _linger(self, delivery: Delivery) -> None:
        """Give up what cannot be stored in time after the end."""
        settings, seconds = delivery.producer.settings, self._patience(delivery.producer)
        with trio.move_on_after(seconds):
            await delivery.over.wait()
            return
        events, lines = delivery.give_up()
        _log.warning(
            "task %s: %d events and %d lines of output could not be stored within %g seconds after its end, "
            "and are lost%s",
            settings.id,
            events,
            lines,
            seconds,
            f" ({self._away})" if self._away else "",
        )
        self._forget(delivery)

    # --- sync, in the thread -------------------------------------------------------------------------------------

    def _take_in(self, producer: Producer) -> None:
        earlier = [delivery for other, delivery in self._deliveries.items() if other.id == producer.id]
        delivery = Delivery(producer, earlier[-1] if earlier else None, self.reply, self._warn)
        self._deliveries[producer] = delivery
        if self._link is not None:
            self._link_nursery.start_soon(self._deliver, delivery, self._link)
        self._wake(producer)

    def _wake(self, producer: Producer) -> None:
        delivery = self._deliveries.get(producer)
        if delivery is None:
            return
        delivery.wake()
        if producer.ended is not None and delivery not in self._lingering:
            self._lingering.add(delivery)
            self._nursery.start_soon(self._linger, delivery)
            if self._away is not None or delivery.troubled:
                producer.settle()

    def _forget(self, delivery: Delivery) -> None:
        producer = delivery.producer
        if self._deliveries.pop(producer, None) is None:
            return
        self._lingering.discard(delivery)
        producer.settle()
        with _lock:
            self._producers.discard(producer)
            if self._producers:
                return
            if _couriers.get(self._nats) is self:
                del _couriers[self._nats]
        self._nursery.cancel_scope.cancel()

    def _lose(self, why: str) -> None:
        self._away = why
        for delivery in self._lingering:
            delivery.producer.settle()
        self._warn(f"task events wait: {why}")

    def _warn(self, text: str) -> None:
        """Once per outage."""
        if not self._warned:
            self._warned = True
            _log.warning("%s", text)

    def _publish(self, subject: str, payload: bytes) -> None:
        if self._link is not None:
            self._link.publish(subject, payload)

    def _abandon_all(self) -> None:
        for producer in list(self._deliveries):
            producer.abandon()
            self._wake(producer)


def _finish_all() -> None:
    for courier in list(_couriers.values()):
        courier.finish()


def _begin_anew() -> None:
    """In a forked process, where the threads of its parent are not."""
    global _lock
    _couriers.clear()
    _lock = threading.Lock()


atexit.register(_finish_all)
os.register_at_fork(after_in_child=_begin_anew)
# A child of multiprocessing ends without atexit, but with its own finalizers.
multiprocessing.util.register_after_fork(
    Courier, lambda _: multiprocessing.util.Finalize(None, _finish_all, exitpriority=0)
)
