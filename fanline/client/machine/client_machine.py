"""Everything that a client decides, over all its connections: a state machine without I/O.

Its parts decide, each by its own rules; here, what happens finds the part that it concerns.

- On a new connection everything is subscribed again before anything else is sent, by resuming the session of the last
  connection that had everything.
- What the server sends is taken at once, whatever it costs. A program that is slow to take its messages holds the
  server back in that the shell reads no further (`holds_back`).
"""

import logging
from collections.abc import Iterable

from fanline.client.control import read_control, server_error
from fanline.client.machine.connection_life import TOO_LATE, ConnectionLife
from fanline.client.machine.connection_states import WELCOMED, ConnectionEvent, ConnectionState
from fanline.client.machine.effects import AskToken, Connect, Disconnect, RenewToken, ShellEffect, Tell, Transmit
from fanline.client.machine.local_subscription import LocalSubscription
from fanline.client.machine.presence import NOTICES, PresenceRoster, PresenceViews
from fanline.client.machine.requests import ClientRequest, ClientRequests
from fanline.client.machine.wire import ServerWire, V1Dialect, no_server, read_welcome
from fanline.client.subscriptions.client_subscriptions import ClientSubscriptions
from fanline.client.subscriptions.effects import AskAgain, Begin, Deliver, Effect, End, Resumed, Send
from fanline.errors import ConnectionLost, ConnectionRefused, ServerError
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.messages.commands import Authenticate
from fanline.protocol.messages.notices import ReconnectData

_AUTH_ID = "~auth"  # no id that a program would give to a message
_log = logging.getLogger("fanline")


class ClientMachine:
    """Every method takes an event and returns what its shell is to do. Times are in seconds, of any one clock that does
    not go back. `can_renew`: whether asking for a token again may give another one.
    """

    def __init__(self, dialect: V1Dialect, *, can_renew: bool) -> None:
        self.error: Exception | None = None
        """What ended the client: an error of ours, or what the program's own function for the token has raised."""
        self.user: str | None = None
        """Whom the server takes the client for, as its last welcome said."""
        self._life = ConnectionLife(can_renew=can_renew)
        self._wire = ServerWire(dialect)
        self._subscriptions = ClientSubscriptions()
        self._presence = PresenceViews()
        self._requests = ClientRequests()
        self._full: set[LocalSubscription] = set()
        self._size = 0  # bytes of the message that is being taken
        self._again: dict[str, float] = {}  # channel -> when to ask for it again

    @property
    def ready(self) -> bool:
        """Whether commands are sent at once."""
        return self._life.state is ConnectionState.READY

    @property
    def holds_back(self) -> bool:
        """Whether the shell should read no further. While a command waits it reads on: the answer comes after what is
        not read yet.
        """
        awaited = self._requests.waiting or self._subscriptions.waiting or self._presence.waiting
        return not awaited and any(each.full for each in self._full)

    @property
    def deadline(self) -> float:
        """When to call `tick`; infinity for not before something else happens."""
        return min(self._life.due, self._life.silent_at, *self._again.values())

    def tick(self, now: float) -> list[ShellEffect]:
        """Time has passed."""
        effects = list[ShellEffect]()
        for channel in [channel for channel, at in self._again.items() if at <= now]:
            del self._again[channel]
            effects += self._carry_out(self._subscriptions.ask_again(channel, now), now)
        if self._life.due <= now and self._life.state is ConnectionState.WAITING:
            self._life.begin(ConnectionEvent.DUE, now)
            effects.append(AskToken())
        elif self._life.due <= now:
            effects += self._drop(ConnectionRefused(TOO_LATE), now)
        if self._life.silent_at <= now:
            error = self._life.miss(now)
            effects += self._drop(error, now) if error else self._send_all([Envelope(MessageType.PING)], now)
        return effects

    # --- the connection -----------------------------------------------------------------------------------------

    def start(self, now: float) -> list[ShellEffect]:
        """The program enters the client."""
        self._life.begin(ConnectionEvent.STARTED, now)
        return [AskToken()]

    def authorized(self, token: str | None) -> list[ShellEffect]:
        """The token for the next connection; None: it needs none."""
        if self._life.state is not ConnectionState.AUTHORIZING:
            return []
        self._life.move(ConnectionEvent.AUTHORIZED)
        return [Connect(token)]

    def not_authorized(self, error: Exception, now: float) -> list[ShellEffect]:
        """Asking for that token has failed."""
        if self._life.state is not ConnectionState.AUTHORIZING:
            return []
        if self._life.session is not None:
            _log.warning("there is no token to come back with: %r", error)
        return self.lost(error, now)

    def opened(self, subprotocol: str | None, now: float) -> list[ShellEffect]:
        """There is a WebSocket."""
        if self._life.state is not ConnectionState.CONNECTING:
            return [Disconnect()]
        self._life.open(now)
        return [] if subprotocol == self._wire.dialect.subprotocol else self._drop(no_server(), now)

    def lost(self, error: Exception, now: float) -> list[ShellEffect]:
        """The WebSocket has ended, or could not be opened."""
        if not self._life.can_lose():
            return []
        if self._life.is_final(error):
            return self._end(error, now)
        was_ready, was_welcomed = self.ready, self._life.state in WELCOMED
        self._life.wait(now)
        if not was_welcomed:
            return []  # an attempt has failed, and nothing was sent
        self._again.clear()
        self._subscriptions.disconnected()
        self._presence.disconnected()
        self._requests.lose(self._subscriptions.is_durable)
        return [Tell(f"{error}; coming back")] if was_ready else []

    def close(self, now: float, fault: Exception | None = None) -> list[ShellEffect]:
        """The program leaves the client, or the shell cannot go on because of a fault."""
        return self._end(fault or ConnectionLost("the client is closed"), now)

    def _drop(self, error: Exception, now: float) -> list[ShellEffect]:
        return [Disconnect(), *self.lost(error, now)]

    def _end(self, error: Exception, now: float) -> list[ShellEffect]:
        """The client is over: wake and end everything that waits."""
        if self._life.state is ConnectionState.ENDED:
            return []
        self._life.end()
        self._again.clear()
        self.error = error
        ours = error if isinstance(error, ConnectionLost | ConnectionRefused) else ConnectionLost(repr(error))
        ours.final = True
        effects = self._carry_out(self._subscriptions.close(ours), now)
        self._presence.close(ours)
        self._requests.close(ours)
        return [*effects, Disconnect()]

    # --- what the server says -----------------------------------------------------------------------------------

    def reading(self, now: float) -> None:
        """The shell begins to wait for the next message."""
        self._life.listen(now)

    def received(self, payload: bytes, now: float) -> list[ShellEffect]:
        """One message of the server."""
        self._life.hear()
        self._size, effects = len(payload), list[ShellEffect]()
        try:
            for envelope in self._wire.decode(payload):
                effects += self._take(envelope, now)
        except (ConnectionLost, ConnectionRefused) as error:
            effects += self._drop(error, now)
        self._size = 0
        return effects

    def _take(self, envelope: Envelope, now: float) -> list[ShellEffect]:
        kind = envelope.type
        if self._life.state not in WELCOMED:
            return self._greet(envelope, now) if self._life.state is ConnectionState.GREETING else []
        if kind in (MessageType.PUB, MessageType.GAP):
            return self._carry_out(self._subscriptions.receive(envelope), now)
        if kind in NOTICES:
            self._presence.tell(envelope)
        elif kind == MessageType.AUTH:
            return [RenewToken()] if self._life.can_renew else []
        elif kind == MessageType.UNSUB:
            lost = self._subscriptions.lose(envelope.channel or "", server_error(envelope))
            return self._carry_out(lost, now)
        elif kind == MessageType.RECONNECT:
            self._life.return_in = read_control(ReconnectData, envelope).delay / 1000
        else:
            return self._take_answer(envelope, now)
        return []

    def _greet(self, envelope: Envelope, now: float) -> list[ShellEffect]:
        self._life.greet(welcome := read_welcome(envelope))
        self._requests.speak_as(welcome.user)
        self._wire.limit, self.user = welcome.limits.message, welcome.user
        return self._carry_out(self._subscriptions.connected(self._life.session), now)

    def _take_answer(self, reply: Envelope, now: float) -> list[ShellEffect]:
        effects = self._subscriptions.answer(reply, now)
        if effects is not None:
            return self._carry_out(effects, now)
        if self._presence.answer(reply):
            return []
        if reply.id == _AUTH_ID and reply.type == MessageType.ERR:
            _log.warning("the server did not accept the new token: %s", server_error(reply))
        request = self._requests.settle(reply)
        if request is not None and reply.type == MessageType.OK and request.command.type == MessageType.PUB:
            self._subscriptions.learn(request.command.channel or "", reply)
        return []

    def renewed(self, token: str | None) -> list[ShellEffect]:
        """Another token, before the present one ends. A refusal is the server's to act upon."""
        if token is None or self._life.state not in WELCOMED:
            return []
        try:
            auth = Envelope(MessageType.AUTH, id=_AUTH_ID, data=Authenticate(token=token).fields())
            return [Transmit(self._wire.encode(auth))]
        except ServerError as error:
            return self.not_renewed(error)

    def not_renewed(self, error: Exception) -> list[ShellEffect]:
        """There is no other token; the present one is still good for a while."""
        _log.warning("there is no new token to show: %r", error)
        return []

    # --- what the program wants ---------------------------------------------------------------------------------

    def enter(self, subscription: LocalSubscription, now: float) -> list[ShellEffect]:
        """Begin a subscription; `begun` says when it has."""
        return self._carry_out(self._subscriptions.subscribe(subscription.cursors), now)

    def leave(self, subscription: LocalSubscription, now: float) -> list[ShellEffect]:
        """End a subscription."""
        self._full.discard(subscription)
        subscription.leave()
        return self._carry_out(self._subscriptions.unsubscribe(subscription.cursors), now)

    def view(self, roster: PresenceRoster, now: float) -> list[ShellEffect]:
        """Begin to watch who is on a channel, which is subscribed already; `begun` says when it is known."""
        self._presence.enter(roster)
        return self._send_all(self._presence.ask(roster), now) if self.ready else []

    def leave_view(self, roster: PresenceRoster) -> None:
        """The program watches no longer."""
        self._presence.leave(roster)
        roster.unread.leave()

    def request(self, request: ClientRequest, now: float) -> list[ShellEffect]:
        """Send a command now, or once there is a connection; it is settled when there is an answer, or can be none."""
        self._requests.queue(request)
        return self._send_queued(now) if self.ready else []

    def forget(self, request: ClientRequest) -> None:
        """The program waits for the answer no longer."""
        self._requests.forget(request)

    def _send_queued(self, now: float) -> list[ShellEffect]:
        welcome, effects = self._life.welcome, list[ShellEffect]()
        for request in self._requests.queued(now):
            request.command.excluded = welcome.connection or None if request.to_others and welcome else None
            try:
                effects.append(Transmit(self._wire.encode(request.command)))
            except (ServerError, UnicodeEncodeError) as error:
                request.fail(error)
            else:
                self._requests.sent(request, now)
        return effects

    def _send_all(self, commands: Iterable[Envelope], now: float) -> list[ShellEffect]:
        """Send commands of our own."""
        effects = list[ShellEffect]()
        for command in commands:
            try:
                effects.append(Transmit(self._wire.encode(command)))
            except ServerError as error:
                self._presence.refuse(command, error)
                effects += self._carry_out(self._subscriptions.refuse(command, error, now), now)
        return effects

    def _carry_out(self, effects: Iterable[Effect], now: float) -> list[ShellEffect]:
        """Do what the subscriptions have decided."""
        found = list[ShellEffect]()
        for effect in effects:
            if isinstance(effect, Deliver):
                subscription: LocalSubscription = effect.cursor.owner
                subscription.put(effect.item, self._size)
                if subscription.full:
                    self._full.add(subscription)
            elif isinstance(effect, Send):
                found += self._send_all([effect.command], now)
            elif isinstance(effect, Begin):
                effect.cursor.owner.begin(effect.cursor.channel, effect.position)
            elif isinstance(effect, End):
                effect.cursor.owner.end(effect.error)
            elif isinstance(effect, AskAgain):
                self._again[effect.channel] = effect.at
            elif isinstance(effect, Resumed):
                found += self._be_ready(now)
        return found

    def _be_ready(self, now: float) -> list[ShellEffect]:
        """Everything is subscribed: whatever has waited may follow."""
        told = [Tell("connected again")] if self._life.be_ready() else []
        return [*told, *self._send_all(self._presence.ask_all(), now), *self._send_queued(now)]
