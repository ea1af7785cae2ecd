"""The calls of `fanline admin`. To add one, add a row to the table."""

import re
from typing import NamedTuple

IN_PATH = re.compile(r"\{(\w+)\}")
"""A name in the path of a call."""


class AdminCall(NamedTuple):
    """One call. Its arguments are the names in the path, then those of the body."""

    name: str
    method: str
    path: str
    help: str
    body: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    """Of a list, the fields that are shown."""

    @property
    def arguments(self) -> list[str]:
        """Their names, in order."""
        return [*IN_PATH.findall(self.path), *self.body]


_CONNECTION = (
    *("connection_id", "user_id", "server", "worker", "route", "client_address", "connected_at", "subscription_count"),
)
CALLS = {
    call.name: call
    for call in (
        AdminCall("info", "GET", "/info", "What the server is."),
        AdminCall("stats", "GET", "/stats", "The whole cluster in numbers."),
        AdminCall(
            "stats-history",
            "GET",
            "/stats/history",
            "What was counted, minute by minute: `--set from=TIME`, `to`, `step`.",
            columns=(
                *("time", "seconds", "stats.connections", "stats.online_users", "stats.messages_sent"),
                *("stats.messages_received", "stats.errors", "stats.abnormal_disconnections"),
                "stats.health_round_trip",
            ),
        ),
        AdminCall("alarms", "GET", "/alarms", "All alarms.", columns=("name", "state", "since", "value", "rule")),
        AdminCall("health", "GET", "/health", "Whether the server does its work, tried now."),
        AdminCall("connections", "GET", "/connections", "All connections.", columns=_CONNECTION),
        AdminCall("connection", "GET", "/connections/{connection_id}", "One connection."),
        AdminCall("user", "GET", "/users/{user_id}/connections", "The connections of a user.", columns=_CONNECTION),
        AdminCall("online", "GET", "/online-users", "Who is connected.", columns=("user_id", "connections")),
        AdminCall("channels", "GET", "/channels", "Channels with subscribers.", columns=("channel", "subscribers")),
        AdminCall("channel", "GET", "/channels/{channel}", "One channel."),
        AdminCall("presence", "GET", "/channels/{channel}/presence", "Who is on a channel."),
        AdminCall(
            "history",
            "GET",
            "/channels/{channel}/history",
            "What is stored of a channel.",
            columns=("offset", "time", "sender", "event", "data"),
        ),
        AdminCall(
            "tasks",
            "GET",
            "/tasks",
            "Running and ended tasks.",
            columns=("task_id", "state", "snapshot.percent", "snapshot.title", "snapshot.message"),
        ),
        AdminCall("task", "GET", "/tasks/{task_id}", "One task."),
        AdminCall("cancel", "POST", "/tasks/{task_id}/cancel", "Ask a task to stop."),
        AdminCall("approve", "POST", "/tasks/{task_id}/approve", "Approve what a task asks."),
        AdminCall("reject", "POST", "/tasks/{task_id}/reject", "Reject what a task asks."),
        AdminCall("input", "POST", "/tasks/{task_id}/input", "Give a task a value, JSON.", ("value",)),
        AdminCall("broadcast", "POST", "/broadcast", "Send a JSON object to every connection.", ("message",)),
        AdminCall("send-to-user", "POST", "/send-to-user", "Send an object to a user's inbox.", ("user_id", "message")),
        AdminCall(
            "send-to-channel", "POST", "/send-to-channel", "Send an object to a channel.", ("channel", "message")
        ),
        AdminCall(
            "send-to-connection",
            "POST",
            "/send-to-connection",
            "Send an object to a connection.",
            ("connection_id", "message"),
        ),
        AdminCall("notify", "POST", "/notify", "Notify a user.", ("user", "title")),
        AdminCall(
            "notifications",
            "GET",
            "/users/{user_id}/notifications",
            "What a user was notified of.",
            columns=("id", "timestamp", "type", "title", "read"),
        ),
        AdminCall(
            "read-notifications",
            "POST",
            "/users/{user_id}/notifications/read",
            "Mark a user's notifications, or `ids`, as read.",
        ),
        AdminCall("preferences", "GET", "/users/{user_id}/preferences", "A user's addresses and preferences."),
        AdminCall("set-preferences", "POST", "/users/{user_id}/preferences", "Replace a user's preferences."),
        AdminCall("remove-preferences", "DELETE", "/users/{user_id}/preferences", "Forget a user's preferences."),
        AdminCall(
            "dead-notifications",
            "GET",
            "/notifications/dead",
            "Given-up notifications.",
            columns=("number", "time", "user_id", "channel", "attempts", "title", "reason"),
        ),
        AdminCall("retry-notification", "POST", "/notifications/dead/{number}/retry", "Retry a given-up notification."),
        AdminCall("ping", "POST", "/ping/{user_id}", "The round trip to each connection of a user."),
        AdminCall("disconnect-user", "POST", "/users/disconnect", "Close all connections of a user.", ("user_id",)),
        AdminCall("disconnect", "POST", "/connections/{connection_id}/disconnect", "Close a connection."),
        AdminCall(
            "subscribe",
            "POST",
            "/connections/{connection_id}/subscribe",
            "Subscribe a connection to a channel.",
            ("channel",),
        ),
        AdminCall(
            "unsubscribe",
            "POST",
            "/connections/{connection_id}/unsubscribe",
            "End a subscription of a connection.",
            ("channel",),
        ),
        AdminCall(
            "dead-letters",
            "GET",
            "/dead-letters",
            "Events that a webhook did not take.",
            columns=("number", "stored", "webhook", "event", "event_id", "reason"),
        ),
        AdminCall("dead-letter", "GET", "/dead-letters/{number}", "Such an event, with its data."),
        AdminCall("post-dead-letter", "POST", "/dead-letters/{number}/post", "Post such an event again."),
        AdminCall("drop-dead-letter", "DELETE", "/dead-letters/{number}", "Forget such an event."),
    )
}
