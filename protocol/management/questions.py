"""What the control process asks workers, on one subject; the values on the bus are JSON. Unknown fields are ignored.

Every worker hears every question. One that is `to` another worker or server it leaves alone.
"""

from typing import Any

import msgspec
from msgspec import Raw

from fanline.protocol.nats.names import system_subject

SUBJECT = system_subject("management")


class ManagementQuestion(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag_field="ask"):
    """One question."""

    to: str = ""
    """The member id of the one worker, or the name of the one server, that is to answer; "": all."""


class StatisticsQuestion(ManagementQuestion, frozen=True, kw_only=True, tag="statistics"):
    """What have you counted? A WorkerStatistics (engine/management/statistics.py)."""

    fresh: bool = True
    """False: users and channels may be those of a little while ago."""


class ConnectionsQuestion(ManagementQuestion, frozen=True, kw_only=True, tag="connections"):
    """Which connections have you? A page of ConnectionInfo, in the order of their ids."""

    after: str = ""
    """An id; only those behind it."""
    limit: int = 100
    user: str | None = None
    channel: str | None = None
    route: str | None = None
    """Only those with this user, subscribed to this channel, come by this route."""


class ConnectionQuestion(ManagementQuestion, frozen=True, kw_only=True, tag="connection"):
    """What is known of this connection? A ConnectionInfo, or null."""

    connection: str


class AudienceQuestion(ManagementQuestion, frozen=True, kw_only=True, tag="audience"):
    """How many connections hear this channel by its own name? A number."""

    channel: str
    without: str | None = None
    """All but this connection."""


class UsersQuestion(ManagementQuestion, frozen=True, kw_only=True, tag="users"):
    """Which users are connected? A page of names, each with the number of connections."""

    after: str = ""
    limit: int = 100
    prefix: str = ""


class ChannelsQuestion(ManagementQuestion, frozen=True, kw_only=True, tag="channels"):
    """Which channels have subscribers? A page of names, each with their number."""

    after: str = ""
    limit: int = 100
    prefix: str = ""


class ChannelPresenceQuestion(ManagementQuestion, frozen=True, kw_only=True, tag="presence"):
    """Who is on this channel, in the whole cluster? What `presence` answers to clients."""

    channel: str


class HistoryQuestion(ManagementQuestion, frozen=True, kw_only=True, tag="history"):
    """What is stored of this channel? What `history` answers to clients."""

    channel: str
    before: int | None = None
    limit: int = 100


class TaskQuestion(ManagementQuestion, frozen=True, kw_only=True, tag="task"):
    """What is known of this task? Its snapshot."""

    channel: str


class StrangersQuestion(ManagementQuestion, frozen=True, kw_only=True, tag="strangers"):
    """Which running tasks do you monitor of which there is no record yet? A StrangersPage."""

    after: str = ""
    """The name of a channel; only those behind it."""
    limit: int = 100


class SendQuestion(ManagementQuestion, frozen=True, kw_only=True, tag="send"):
    """Send this to a connection. Whether it is open here: true or false."""

    connection: str
    event: str
    data: Any = None


class PingQuestion(ManagementQuestion, frozen=True, kw_only=True, tag="ping"):
    """Ping the connections of this user. A list of PingResult."""

    user: str


class DisconnectQuestion(ManagementQuestion, frozen=True, kw_only=True, tag="disconnect"):
    """Close this connection, or all of this user. How many were closed."""

    connection: str | None = None
    user: str | None = None
    reconnect: bool = False
    """Whether the clients are to come back."""


class SubscribeQuestion(ManagementQuestion, frozen=True, kw_only=True, tag="subscribe"):
    """Subscribe this connection to a channel, whatever its rights. Whether it is open here."""

    connection: str
    channel: str


class UnsubscribeQuestion(ManagementQuestion, frozen=True, kw_only=True, tag="unsubscribe"):
    """End a subscription of this connection, and tell it. Whether there was one; null if it is not open here."""

    connection: str
    channel: str


class CallQuestion(ManagementQuestion, frozen=True, kw_only=True, tag="call"):
    """Ask the producer of a task, as a viewer's `call` does. The data of the answer."""

    channel: str
    verb: str
    data: Any = None
    by: str = ""


AnyQuestion = (
    StatisticsQuestion
    | ConnectionsQuestion
    | ConnectionQuestion
    | AudienceQuestion
    | UsersQuestion
    | ChannelsQuestion
    | ChannelPresenceQuestion
    | HistoryQuestion
    | TaskQuestion
    | StrangersQuestion
    | SendQuestion
    | PingQuestion
    | DisconnectQuestion
    | SubscribeQuestion
    | UnsubscribeQuestion
    | CallQuestion
)
_decoder: msgspec.json.Decoder[AnyQuestion] = msgspec.json.Decoder(AnyQuestion)


class Answered(msgspec.Struct, frozen=True, omit_defaults=True):
    """One worker's answer."""

    worker: str
    """Its member id."""
    body: Raw = Raw(b"null")
    code: str = ""
    """An error code, if it cannot be answered; then `message` is a sentence."""
    message: str = ""


_answers = msgspec.json.Decoder(Answered)


def encode_question(question: ManagementQuestion) -> bytes:
    """As it goes over the bus."""
    return msgspec.json.encode(question)


def decode_question(payload: bytes) -> AnyQuestion | None:
    """None for a question that cannot be read, as of a later version."""
    try:
        return _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def decode_answered(payload: bytes) -> Answered | None:
    """None for an answer that cannot be read."""
    try:
        return _answers.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
