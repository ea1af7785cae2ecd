"""The session: one client's identity, encoding and subscriptions. What it may send is in commands.py."""

import secrets
from collections.abc import Callable

import trio

from fanline.engine.access.identity import Identity
from fanline.engine.access.routes import ServedRoute
from fanline.engine.access.user_places import Place
from fanline.engine.channels.subscription import ChannelSubscription
from fanline.engine.clock import unix_ms
from fanline.engine.hooks.events import Events
from fanline.engine.routes import Acknowledge
from fanline.engine.sending.outbox import Outbox
from fanline.engine.sessions.connection_ids import connection_id, next_number
from fanline.engine.sessions.origin import UNKNOWN, Origin
from fanline.engine.sessions.store import STORE_AGAIN, SessionStore
from fanline.protocol.dialects.encoding import Encoding
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.errors import CloseReason, ErrorCode
from fanline.protocol.handlers import AuthenticateRequest
from fanline.protocol.hooks.events import ChannelUnsubscribed
from fanline.protocol.messages.answers import ErrorData
from fanline.protocol.messages.notices import Limits, Welcome
from fanline.protocol.websocket.routes import Visit

_PLAIN_CLOSES = {
    CloseReason.REPLACED: CloseReason.NORMAL,  # the only code after which old clients do not come back
    CloseReason.DISCONNECTED: CloseReason.NORMAL,
    CloseReason.UNAUTHENTICATED: CloseReason.POLICY,
    CloseReason.FORBIDDEN: CloseReason.POLICY,
}
"""The codes that old clients know in place of ours; the texts are ours."""

OnLeft = Callable[["Session", str], None]


class Session:
    """Lives as long as its connection. A later connection that names its id takes its subscriptions over, under an id
    of its own.
    """

    __slots__ = (
        "__weakref__",
        "_store",
        "_stored_at",
        "acknowledges",
        "calls",
        "credential",
        "encoding",
        "events",
        "id",
        "identity",
        "number",
        "on_left",
        "origin",
        "outbox",
        "place",
        "ponged",
        "request",
        "rooms",
        "route",
        "subscriptions",
        "unasked",
        "visit",
    )

    def __init__(
        self,
        store: SessionStore,
        events: Events,
        encoding: Encoding,
        identity: Identity,
        outbox: Outbox,
        route: ServedRoute,
        visit: Visit,
        origin: Origin = UNKNOWN,
    ) -> None:
        self.id = secrets.token_urlsafe(12)
        """A secret: a client that names it takes the session up."""
        self.number = next_number()
        """That of its connection in this process."""
        self.encoding = encoding
        self.events = events
        self.outbox = outbox
        self.become(identity)
        self.route = route
        """The one by which the client has come, and shares with all that have."""
        self.visit = visit
        self.origin = origin
        self.ponged = 0.0
        """When the client last answered a ping, by Trio's clock; 0.0: never."""
        self.subscriptions: dict[str, ChannelSubscription] | None = None
        """Channel -> subscription, once it was answered; None before the first: most connections are idle."""
        self.rooms: frozenset[str] = frozenset()
        """Of a plain client: the channels where others were notified that it has joined."""
        self.on_left: OnLeft | None = None
        """Of a plain client that others know to be on channels: called when its subscription to one ends before the
        connection does.
        """
        self.acknowledges = route.options.ack is Acknowledge.EXPLICIT
        """Whether the client itself says what it has taken of an inbox, so that a pong does not."""
        self.unasked: set[str] | None = None
        """Of a v1 client: the channels that its route has joined, and for which it has sent no `sub`."""
        self.place: Place | None = None
        """That of the connection among those of its user, if they are limited."""
        self.request: AuthenticateRequest | None = None
        """What the authenticator, if there is one, is asked again when the client shows another token."""
        self.credential: str | None = None
        """Of a client that manages the server: what it has shown, which goes with each call that it makes."""
        self.calls = 0
        """Calls to producers under way."""
        self._store = store
        self._stored_at = 0.0  # Trio time

    def become(self, identity: Identity) -> None:
        """The client has this identity from now on: it has connected, presented a new token, or said who it is."""
        self.identity = identity
        self.outbox.user = identity.user

    @property
    def connection(self) -> str:
        """The connection's public id, which others may know."""
        return connection_id(self.number)

    def welcome(self, heartbeat: float, limits: Limits) -> None:
        """Greet the client. `heartbeat` in seconds."""
        data = Welcome(
            session=self.id,
            connection=self.connection,
            user=self.identity.user,
            heartbeat=int(heartbeat * 1000),
            limits=limits,
        )
        welcome = Envelope(MessageType.WELCOME, time=unix_ms(), data=data.fields())
        self.outbox.push(self.encoding.frame(self.encoding.dialect.welcome(welcome, self.visit)))

    def push(self, envelope: Envelope) -> None:
        """Send an envelope that is no answer to a command by its id."""
        if envelope.time is None and self.encoding.dialect.is_plain:
            envelope.time = unix_ms()  # every message to a plain client has one
        self.outbox.push(self.encoding.encode(envelope))

    def close(self, reason: CloseReason) -> None:
        """End the connection from our side: a close frame, then a moment for the client to take it."""
        known = _PLAIN_CLOSES.get(reason, reason) if self.encoding.dialect.is_plain else reason
        self.outbox.finish(known, reason.text)
        self.outbox.life.scope.cancel()

    def unsubscribe(self, channel: str) -> bool:
        """End a subscription; False if there is none."""
        subscription = (self.subscriptions or {}).pop(channel, None)
        if subscription is None:
            return False
        subscription.leave()
        self.store()
        self.events.say(ChannelUnsubscribed, self, channel=channel)
        if self.on_left is not None:
            self.on_left(self, channel)
        return True

    def end_subscription(self, channel: str, code: ErrorCode, message: str) -> None:
        """End a subscription from our side, and say why; nothing happens if there is none."""
        if self.unsubscribe(channel):
            data = ErrorData(code=code, message=message).fields()
            self.push(Envelope(MessageType.UNSUB, channel=channel, data=data, time=unix_ms()))

    def store(self) -> None:
        """Have the session stored soon, with its subscriptions."""
        if not self.encoding.dialect.is_plain:  # its clients know no sessions
            self._stored_at = trio.current_time()
            self._store.put(self.id, self.identity.user, self.subscriptions or ())

    def store_again(self) -> None:
        """Called from time to time: keeps the stored session from expiring."""
        if self.subscriptions and trio.current_time() - self._stored_at > STORE_AGAIN:
            self.store()

    def end(self) -> None:
        """The connection has ended: leave all channels."""
        for subscription in (self.subscriptions or {}).values():
            subscription.lose()
        self.subscriptions = None
