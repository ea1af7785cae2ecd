"""Notifies users whose log-in or rights were taken back, by the API or on the command line.

Both stand in the bucket REVOKED, which workers read as well. What is asked for is a notification with a name made of
the entry, so that one that is seen twice, as by the next process that leads, is sent once.
"""

from collections.abc import Callable

from fanline.engine.bus.interface import Bus
from fanline.engine.bus.stored import KvEntry
from fanline.engine.clock import unix_ms_of
from fanline.protocol.auth.revocation import REMOVALS, Removal, decode_removal, decode_revocation
from fanline.protocol.compat.escapes import unescape_id
from fanline.protocol.nats.names import Bucket, name_key
from fanline.protocol.notifications.notification import Notification
from fanline.workers.control.monitoring.reporter import Reporter

_RECENT_SECONDS = 60.0  # older entries were seen by the previous leader


class RevokedNotices:
    """Of one control process. `clock`: Unix seconds."""

    def __init__(self, bus: Bus, reporter: Reporter, clock: Callable[[], float]) -> None:
        self._bus = bus
        self._reporter = reporter
        self._clock = clock
        self._read_until = 0

    async def look(self, *, leads: bool) -> None:
        """Ask for notifications about what is new, if this process leads. BusError."""
        if not leads:
            self._read_until = 0
            return
        found = await self._bus.kv_entries(Bucket.REVOKED, after=self._read_until)
        for key, entry in found.items():
            if self._clock() - unix_ms_of(entry.time) / 1000 < _RECENT_SECONDS:
                notification = _notification(key, entry)
                # A user may be called `*`; under that name a notification would be for all users.
                if notification is not None and notification.is_for_one:
                    self._reporter.notify(notification)
        self._read_until = max([self._read_until, *(entry.revision for entry in found.values())])


def _notification(key: str, entry: KvEntry) -> Notification | None:
    """None for what is about no user in particular, or cannot be read."""
    name = name_key(f"revoked/{key}/{entry.revision}")
    try:
        if key.startswith(f"{REMOVALS}."):
            return _of_removal(decode_removal(entry.value), name)
        user = decode_revocation(entry.value).user
    except ValueError:
        return None
    if user is None:
        return None
    return Notification(
        user=user,
        template="login_state",
        parameters={"state": "signed out", "details": "You were signed out everywhere; sign in again."},
        id=name,
    )


def _of_removal(removal: Removal, name: str) -> Notification:
    details = removal.reason or f"You no longer have access to {removal.channel}."
    namespace, _, session = removal.channel.partition(":")
    if namespace == "session":
        return Notification(
            user=removal.user,
            template="chat_session_state",
            parameters={"session": unescape_id(session), "state": "you have been removed", "details": details},
            data={"channel": removal.channel},
            id=name,
        )
    return Notification(
        user=removal.user,
        template="right_changed",
        parameters={"details": details},
        data={"channel": removal.channel},
        id=name,
    )
