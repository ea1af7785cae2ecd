"""The life of a client's channel: (state, event) -> state, one table. The rules on top of it: client_channel.py."""

from enum import StrEnum


class ChannelState(StrEnum):
    OFFLINE = "offline"  # there is no connection
    RESUMING = "resuming"  # the session is being resumed; whether it holds the channel is still to be said
    IDLE = "idle"  # the server does not send the channel and has not been asked to
    ASKING = "asking"  # the first `sub` on this connection is under way
    REFUSED = "refused"  # it was refused for now, and is repeated later
    REPLAYING = "replaying"  # the server sends the channel, and is not through with the history
    LIVE = "live"  # the server sends the channel
    REJOINING = "rejoining"  # the server sends the channel; a `sub` for what it lacks is under way
    POSTPONED = "postponed"  # the server sends the channel; that `sub` was refused for now, and is repeated later


class ChannelEvent(StrEnum):
    CONNECTED = "connected"
    SESSION_NAMED = "session named"
    NOT_RESUMED = "not in the session"
    DISCONNECTED = "disconnected"
    ASKED = "sub sent"
    JOINED = "ok"
    JOINED_WITH_HISTORY = "ok with history"
    CAUGHT_UP = "end of history"
    REFUSED_FOR_NOW = "refused for now"
    REFUSED = "refused"
    DUE = "time to ask again"
    LEFT = "last one left"


_ANSWERS = {
    ChannelEvent.JOINED: ChannelState.LIVE,
    ChannelEvent.JOINED_WITH_HISTORY: ChannelState.REPLAYING,
}
_ENDS = {ChannelEvent.LEFT: ChannelState.IDLE, ChannelEvent.DISCONNECTED: ChannelState.OFFLINE}

CHANNEL_TRANSITIONS: dict[ChannelState, dict[ChannelEvent, ChannelState]] = {
    ChannelState.OFFLINE: {
        ChannelEvent.CONNECTED: ChannelState.IDLE,
        ChannelEvent.SESSION_NAMED: ChannelState.RESUMING,
        ChannelEvent.LEFT: ChannelState.OFFLINE,
    },
    ChannelState.RESUMING: {
        **_ANSWERS,
        ChannelEvent.NOT_RESUMED: ChannelState.IDLE,
        ChannelEvent.REFUSED_FOR_NOW: ChannelState.REFUSED,
        ChannelEvent.REFUSED: ChannelState.IDLE,
        **_ENDS,
    },
    ChannelState.IDLE: {ChannelEvent.ASKED: ChannelState.ASKING, **_ENDS},
    ChannelState.ASKING: {
        **_ANSWERS,
        ChannelEvent.REFUSED_FOR_NOW: ChannelState.REFUSED,
        ChannelEvent.REFUSED: ChannelState.IDLE,
        **_ENDS,
    },
    ChannelState.REFUSED: {ChannelEvent.DUE: ChannelState.IDLE, **_ENDS},
    ChannelState.REPLAYING: {
        ChannelEvent.CAUGHT_UP: ChannelState.LIVE,
        ChannelEvent.ASKED: ChannelState.REJOINING,
        **_ENDS,
    },
    ChannelState.LIVE: {ChannelEvent.ASKED: ChannelState.REJOINING, **_ENDS},
    ChannelState.REJOINING: {
        **_ANSWERS,
        ChannelEvent.REFUSED_FOR_NOW: ChannelState.POSTPONED,
        ChannelEvent.REFUSED: ChannelState.LIVE,
        **_ENDS,
    },
    ChannelState.POSTPONED: {ChannelEvent.DUE: ChannelState.LIVE, **_ENDS},
}

MAY_ASK = (ChannelState.IDLE, ChannelState.REPLAYING, ChannelState.LIVE)
"""A `sub` may be sent."""
TO_ASK_AGAIN = (ChannelState.REFUSED, ChannelState.POSTPONED)
"""A `sub` is to be repeated."""
SENT = (ChannelState.LIVE, ChannelState.REPLAYING, ChannelState.REJOINING, ChannelState.POSTPONED)
"""The server has answered for the channel on this connection, so what comes of it goes on from the answer."""
SILENT = (ChannelState.OFFLINE, ChannelState.RESUMING, ChannelState.IDLE, ChannelState.REFUSED)
"""The server has not been asked for the channel by name: there is nothing to take back yet."""
