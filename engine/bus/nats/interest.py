"""The subjects a worker wants to hear and the subscriptions nats-py has: two sets, reconciled in order.

What is wanted is recorded synchronously; the pump of NatsBus calls the two async methods. No asyncio here.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

import nats.errors
import trio
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

_log = logging.getLogger("fanline.bus")


class Sink:
    """Passed where nats-py expects a future, on which it only calls `cancelled()` and `set_result()`."""

    __slots__ = ("_take",)

    def __init__(self, take: Callable[[Msg], None]) -> None:
        self._take = take

    def cancelled(self) -> bool:
        return False

    def set_result(self, message: Msg) -> None:
        try:
            self._take(message)
        except Exception:  # noqa: BLE001  # it would end nats-py's read loop, and with it every channel
            _log.exception("a message on %s could not be delivered", message.subject)


async def subscribe(client: Client, subject: str, sink: Sink) -> Subscription:
    """Have nats-py hand a subject's messages to a sink."""
    return await client.subscribe(subject, future=cast("Any", sink))


class Interest:
    """Wanted subjects, each with its sink; `want` and `drop` are idempotent and take effect in the pump's next turn."""

    def __init__(self) -> None:
        self._wanted: dict[str, Sink] = {}
        self._subscriptions: dict[str, Subscription] = {}
        self._changed: dict[str, None] = {}
        self._unconfirmed: dict[str, trio.Event] = {}

    def want(self, subject: str, sink: Sink) -> None:
        if subject not in self._wanted:
            self._wanted[subject] = sink
            self._unconfirmed.setdefault(subject, trio.Event())
            self._changed[subject] = None

    def drop(self, subject: str) -> None:
        if self._wanted.pop(subject, None) is not None:
            self._unconfirmed.pop(subject, None)
            self._changed[subject] = None

    def unconfirmed(self, subject: str) -> trio.Event | None:
        """An event that is set once the server is known to have the subscription; None if that is known already, or the
        subject is not wanted.
        """
        return self._unconfirmed.get(subject)

    async def send_changes(self, client: Client) -> None:
        """Subscribe and unsubscribe until the subscriptions are those that are wanted."""
        while self._changed:
            subject = next(iter(self._changed))
            del self._changed[subject]  # before the await: a change made meanwhile is recorded again
            try:
                await self._reconcile(client, subject)
            except BaseException:
                self._changed.setdefault(subject, None)
                raise

    async def _reconcile(self, client: Client, subject: str) -> None:
        sink = self._wanted.get(subject)
        if sink is not None:
            if subject not in self._subscriptions:
                self._subscriptions[subject] = await subscribe(client, subject, sink)
        elif (subscription := self._subscriptions.pop(subject, None)) is not None:
            await subscription.unsubscribe()

    async def confirm(self, client: Client, round_trip: Callable[[], Awaitable[None]]) -> None:
        """Confirm all subscriptions sent so far: one round trip proves that every SUB before it is in effect."""
        waiting = {subject: event for subject, event in self._unconfirmed.items() if subject in self._subscriptions}
        if not waiting:
            return
        await round_trip()
        if not client.is_connected:  # while reconnecting, nats-py's flush returns at once and proves nothing
            raise nats.errors.ConnectionReconnectingError
        for subject, event in waiting.items():
            event.set()
            if self._unconfirmed.get(subject) is event:
                del self._unconfirmed[subject]
