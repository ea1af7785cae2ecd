"""The bus on NATS: nats-py inside a trio-asyncio loop. The only module that knows asyncio.

What a worker wants (`join`, `leave`, `publish`) is written down synchronously; one asyncio task, the pump, carries it
to the client in order and confirms new subscriptions with one PING for all of them. Messages come back through one
shared sink that nats-py calls from its read loop: a callback task per subscription costs three times as much
(docs/explanation/decisions/0005-one-sink-for-all-subscriptions.md).
"""

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import msgspec
import nats.errors
import trio
import trio_asyncio
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from engine.bus import BusError, Deliver
from protocol.channels import to_subject

MINIMUM_VERSION = (2, 11)
"""Older servers lack per-message TTL and the batched direct get that durable channels read with."""
MAX_QUEUED = 10_000
"""Publishes that may wait for the pump; more means that NATS is behind."""

_CONNECT_TIMEOUT = 5.0
_RETRY_WAIT = 0.2
_log = logging.getLogger("fanline.bus")


class NatsOptions(msgspec.Struct, frozen=True):
    """How to reach NATS. Empty strings mean: not used."""

    servers: tuple[str, ...]
    user: str = ""
    password: str = ""
    token: str = ""
    creds: str = ""
    """Path of a creds file (JWT and seed)."""
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""

    def describe(self) -> str:
        """The servers without credentials, for logs and errors."""
        return ", ".join(server.rpartition("@")[2].removeprefix("nats://") for server in self.servers)


@asynccontextmanager
async def open_nats_bus(options: NatsOptions, name: str) -> AsyncIterator["NatsBus"]:
    """A connected bus, and the asyncio loop it lives in. Raises BusError if NATS cannot be used as it is."""
    bus = NatsBus(options)
    async with trio_asyncio.open_loop():
        # Not raised in here: the loop's nurseries would wrap it in exception groups.
        refusal = await trio_asyncio.aio_as_trio(bus._connect)(name)
        if refusal is None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio_asyncio.aio_as_trio(bus._pump))
                try:
                    yield bus
                finally:
                    nursery.cancel_scope.cancel()
                    with trio.move_on_after(1, shield=True), suppress(OSError, nats.errors.Error):
                        await trio_asyncio.aio_as_trio(bus._client.close)()
    if refusal is not None:
        raise refusal


class _Sink:
    """Stands where nats-py expects a future: it asks `cancelled()` and calls `set_result()` for every message."""

    __slots__ = ("deliver",)

    def __init__(self, deliver: Deliver) -> None:
        self.deliver = deliver

    def cancelled(self) -> bool:
        return False

    def set_result(self, message: Msg) -> None:
        try:
            # Only subjects made by to_subject are subscribed, so cutting the prefix is its exact inverse.
            self.deliver(message.subject[_PREFIX_LENGTH:].replace(".", ":", 1), message.data)
        except Exception:  # noqa: BLE001  # it would end nats-py's read loop, and with it every channel
            _log.exception("a message on %s could not be delivered", message.subject)


_PREFIX_LENGTH = len("fanline.pub.")


class NatsBus:
    """See engine/bus.py for the promises; made by `open_nats_bus`."""

    def __init__(self, options: NatsOptions) -> None:
        self._options = options
        self._client = Client()
        self._sink: _Sink | None = None
        self._last_error: Exception | None = None
        # Interest: what is wanted, what nats-py has, and what has to be brought together, in order.
        self._wanted: set[str] = set()
        self._subscriptions: dict[str, Subscription] = {}
        self._changed: dict[str, None] = {}
        self._unconfirmed: dict[str, trio.Event] = {}
        self._publishes: deque[tuple[str, bytes]] = deque()
        self._work = asyncio.Event()

    @property
    def connected(self) -> bool:
        return self._client.is_connected

    def attach(self, deliver: Deliver) -> None:
        self._sink = _Sink(deliver)

    def join(self, channel: str) -> None:
        if channel not in self._wanted:
            self._wanted.add(channel)
            self._unconfirmed.setdefault(channel, trio.Event())
            self._note_change(channel)

    async def wait_joined(self, channel: str) -> None:
        event = self._unconfirmed.get(channel)
        if event is not None:
            await event.wait()

    def leave(self, channel: str) -> None:
        if channel in self._wanted:
            self._wanted.discard(channel)
            self._unconfirmed.pop(channel, None)
            self._note_change(channel)

    async def publish(self, channel: str, payload: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if not self._client.is_connected:
            raise BusError("NATS is not connected; nothing was published")
        if len(self._publishes) >= MAX_QUEUED:
            raise BusError("NATS does not keep up; nothing was published")
        self._publishes.append((to_subject(channel), payload))
        self._work.set()

    def _note_change(self, channel: str) -> None:
        self._changed[channel] = None
        self._work.set()

    # --- the asyncio side ---------------------------------------------------------------------------------------

    async def _connect(self, name: str) -> BusError | None:
        """Connect; the reason why not, if NATS cannot be used as it is."""
        where = self._options.describe()
        try:
            await asyncio.wait_for(self._client.connect(**self._client_options(name)), _CONNECT_TIMEOUT)
        except BusError as error:
            return error
        except (TimeoutError, OSError, nats.errors.Error, ValueError) as error:
            cause = self._last_error or error
            return BusError(f"cannot connect to NATS at {where}: {str(cause) or type(cause).__name__}")
        version = self._client.connected_server_version
        if (version.major, version.minor) >= MINIMUM_VERSION:
            return None
        await self._client.close()
        wanted = ".".join(map(str, MINIMUM_VERSION))
        found = f"{version.major}.{version.minor}.{version.patch}"
        return BusError(f"NATS at {where} is version {found}; Fanline needs {wanted} or newer")

    def _client_options(self, name: str) -> dict[str, Any]:
        options = self._options
        credentials = {
            "user": options.user,
            "password": options.password,
            "token": options.token,
            "user_credentials": options.creds,
        }
        return {
            "servers": list(options.servers),
            "name": f"fanline {name}",
            "connect_timeout": 2,
            "reconnect_time_wait": _RETRY_WAIT,
            "max_reconnect_attempts": -1,
            "ping_interval": 10,
            "max_outstanding_pings": 2,
            "error_cb": self._on_error,
            "disconnected_cb": self._on_disconnected,
            "reconnected_cb": self._on_reconnected,
            "tls": _tls_context(options),
            **{key: value for key, value in credentials.items() if value},
        }

    async def _on_error(self, error: Exception) -> None:
        self._last_error = error
        _log.debug("NATS: %s", error)

    async def _on_disconnected(self) -> None:
        if not self._client.is_closed:
            _log.warning("NATS connection lost, reconnecting")

    async def _on_reconnected(self) -> None:
        _log.warning("NATS connection is back")

    async def _pump(self) -> None:
        """Carry what was asked for to the client, in order, for ever."""
        while True:
            await self._work.wait()
            self._work.clear()
            try:
                await self._send_changes()
                await self._send_publishes()
                await self._confirm()
            except (nats.errors.Error, OSError) as error:
                # nats-py subscribes again by itself once it is back; only the confirmation has to be asked anew.
                _log.debug("NATS: %s", error)
                await asyncio.sleep(_RETRY_WAIT)
                self._work.set()

    async def _send_changes(self) -> None:
        while self._changed:
            channel = next(iter(self._changed))
            del self._changed[channel]  # before the await: a change of mind meanwhile is noted anew
            try:
                await self._bring_together(channel)
            except BaseException:
                self._changed.setdefault(channel, None)
                raise

    async def _bring_together(self, channel: str) -> None:
        if channel in self._wanted:
            if channel not in self._subscriptions:
                sink = cast("asyncio.Future[Msg]", self._sink)
                self._subscriptions[channel] = await self._client.subscribe(to_subject(channel), future=sink)
        elif (subscription := self._subscriptions.pop(channel, None)) is not None:
            await subscription.unsubscribe()

    async def _send_publishes(self) -> None:
        while self._publishes:
            subject, payload = self._publishes.popleft()
            await self._client.publish(subject, payload)

    async def _confirm(self) -> None:
        """One round trip to the server proves that every SUB before it is in effect."""
        waiting = {channel: event for channel, event in self._unconfirmed.items() if channel in self._subscriptions}
        if not waiting:
            return
        await self._client.flush(timeout=2)
        if not self._client.is_connected:  # while reconnecting, nats-py's flush returns at once and proves nothing
            raise nats.errors.ConnectionReconnectingError
        for channel, event in waiting.items():
            event.set()
            if self._unconfirmed.get(channel) is event:
                del self._unconfirmed[channel]


def _tls_context(options: NatsOptions) -> ssl.SSLContext | None:
    if not (options.tls_ca or options.tls_cert):
        return None  # nats-py makes a default context for tls:// URLs
    try:
        context = ssl.create_default_context(cafile=options.tls_ca or None)
        if options.tls_cert:
            context.load_cert_chain(options.tls_cert, options.tls_key or None)
    except OSError as error:  # ssl.SSLError is one
        raise BusError(f"the TLS files for NATS cannot be used: {error}") from None
    return context
