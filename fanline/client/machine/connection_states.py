"""The life of a client's connection to the server: (state, event) -> state, one table. The rules: client_machine.py."""

from enum import StrEnum


class ConnectionState(StrEnum):
    NEW = "new"  # the client has not been entered
    AUTHORIZING = "authorizing"  # the token for the next connection is being asked for
    CONNECTING = "connecting"  # a WebSocket is being opened
    GREETING = "greeting"  # it is open; the server's welcome is still to come
    RESUMING = "resuming"  # everything is being subscribed again; commands wait
    READY = "ready"  # commands are sent
    WAITING = "waiting"  # the connection is lost; the next attempt has its time
    ENDED = "ended"  # the client was left, or what the server said is final


class ConnectionEvent(StrEnum):
    STARTED = "entered"
    AUTHORIZED = "token"
    OPENED = "open"
    WELCOMED = "welcome"
    RESUMED = "all answered"
    LOST = "lost"
    DUE = "time to come back"
    ENDED = "ended"


_ENDS = {ConnectionEvent.LOST: ConnectionState.WAITING, ConnectionEvent.ENDED: ConnectionState.ENDED}

CONNECTION_TRANSITIONS: dict[ConnectionState, dict[ConnectionEvent, ConnectionState]] = {
    ConnectionState.NEW: {
        ConnectionEvent.STARTED: ConnectionState.AUTHORIZING,
        ConnectionEvent.ENDED: ConnectionState.ENDED,
    },
    ConnectionState.AUTHORIZING: {ConnectionEvent.AUTHORIZED: ConnectionState.CONNECTING, **_ENDS},
    ConnectionState.CONNECTING: {ConnectionEvent.OPENED: ConnectionState.GREETING, **_ENDS},
    ConnectionState.GREETING: {ConnectionEvent.WELCOMED: ConnectionState.RESUMING, **_ENDS},
    ConnectionState.RESUMING: {ConnectionEvent.RESUMED: ConnectionState.READY, **_ENDS},
    ConnectionState.READY: _ENDS,
    ConnectionState.WAITING: {
        ConnectionEvent.DUE: ConnectionState.AUTHORIZING,
        ConnectionEvent.ENDED: ConnectionState.ENDED,
    },
    ConnectionState.ENDED: {},
}

WELCOMED = (ConnectionState.RESUMING, ConnectionState.READY)
"""The server has said welcome, and subscriptions are sent."""
