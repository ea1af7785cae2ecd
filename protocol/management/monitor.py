"""What is sent on the monitor, and what the engine's processes send each other for it.

docs/reference/monitor.md has the full text; a test compares the names.
"""

from enum import StrEnum

import msgspec

from fanline.protocol.nats.names import MONITOR_NAMESPACE, system_subject

MONITOR = f"{MONITOR_NAMESPACE}:all"
"""The channel of the statistics, and of who comes and goes."""
SYSTEM = "system:all"
"""The channel of alarms and of changes of a server's state."""
CALL_PATH = "/monitor/call"
"""Where a worker passes on the calls of clients on the monitor: below no path that it passes on for others."""
MINUTES_KEPT_SECONDS = 30 * 86_400.0
"""How long the records of minutes are kept."""


class MonitorEvent(StrEnum):
    """The events on MONITOR."""

    STATS = "stats_update"
    CONNECT = "connect"
    DISCONNECT = "disconnect"
    USER_STATUS = "user_status_update"
    CONNECTIONS = "connections_update"


class AlarmKind(StrEnum):
    """What an alarm is about."""

    PERFORMANCE = "performance"
    SECURITY = "security"
    DISRUPTION = "disruption"

    @property
    def event(self) -> str:
        """The event under which it stands on SYSTEM."""
        return _EVENTS[self]


_EVENTS = {
    AlarmKind.PERFORMANCE: "system_performance_alert",
    AlarmKind.SECURITY: "system_security_alert",
    AlarmKind.DISRUPTION: "system_service_disruption",
}


# --- between the processes ------------------------------------------------------------------------------------------

SUBJECT = system_subject("monitor")
WATCH_SECONDS = 1.0
"""How often a worker with a client on the monitor says so."""
FORGET_SECONDS = 3.5
"""When no worker has said so for this long, the monitor has no clients any more."""


class MonitorNote(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag_field="note"):
    """Base of all of them."""


class Watched(MonitorNote, frozen=True, kw_only=True, tag="watched"):
    """A worker has a client on the monitor."""


class Draining(MonitorNote, frozen=True, kw_only=True, tag="draining"):
    """A worker has been told to end, and sends its clients away."""

    id: str
    """Its member id."""
    server: str
    host: str
    name: str
    """As in `worker-0`."""


class ServerTried(MonitorNote, frozen=True, kw_only=True, tag="tried"):
    """A control process has had a message go through its server and back."""

    server: str
    seconds: float | None
    """The round trip; None if it did not come back."""
    message: str = ""
    """Why it did not."""
    workers: int = 0
    """How many the server should have; 0: it does not say."""


AnyNote = Watched | Draining | ServerTried
_notes: msgspec.json.Decoder[AnyNote] = msgspec.json.Decoder(AnyNote)


def encode_note(note: MonitorNote) -> bytes:
    """As it goes over the bus."""
    return msgspec.json.encode(note)


def decode_note(payload: bytes) -> AnyNote | None:
    """None for one that cannot be read, as of a later version."""
    try:
        return _notes.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
