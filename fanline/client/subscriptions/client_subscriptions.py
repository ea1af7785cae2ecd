"""All subscriptions of one client: which channel an envelope is for, and what the connection means to each of them."""

import random
from collections.abc import Callable, Iterable

from fanline.base.backoff import Backoff
from fanline.client.control import server_error
from fanline.client.subscriptions.channel_states import ChannelState
from fanline.client.subscriptions.client_channel import ClientChannel
from fanline.client.subscriptions.cursor import Cursor, CursorEvent
from fanline.client.subscriptions.effects import Effect, End, Resumed, Send
from fanline.client.subscriptions.resumption import Resumption, ResumptionEvent
from fanline.client.subscriptions.sub_requests import SubRequests
from fanline.errors import ConnectionLost, ConnectionRefused, ServerError
from fanline.protocol.channels import is_pattern, namespace_of, pattern_of
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.tasks.events import TaskEvent


class ClientSubscriptions:
    """Every method takes an event and returns its effects. Times are in seconds, of any one clock."""

    def __init__(self, uniform: Callable[[float, float], float] = random.uniform) -> None:
        self._uniform = uniform
        self._channels: dict[str, ClientChannel] = {}
        self._requests = SubRequests()
        self._connected = False
        self._resumption = Resumption()
        self._unanswered: set[str] | None = None  # channels that hold back `Resumed`; None: it was said
        self._durable: set[str] = set()  # namespaces, as far as an answer has said so
        self._error: ConnectionLost | ConnectionRefused | None = None

    @property
    def waiting(self) -> bool:
        """Whether an answer is to come, for which the shell has to read on."""
        return bool(self._requests) or self._resumption.under_way

    # --- the connection -----------------------------------------------------------------------------------------

    def connected(self, session: str | None = None) -> list[Effect]:
        """There is a new connection: everything is subscribed again, by resuming a session of an earlier connection if
        there is one. `Resumed` follows once all of it is answered.
        """
        self._connected = True
        self._unanswered = set(self._channels)
        if session is not None and self._channels:
            places = {name: channel.resume() for name, channel in self._channels.items()}
            known = {name: place for name, place in places.items() if place is not None}
            return [Send(command) for command in self._resumption.begin(session, known)]
        effects = [effect for channel in self._channels.values() for effect in channel.connected()]
        self._unanswered = {name for name, channel in self._channels.items() if channel.state is ChannelState.ASKING}
        return effects + self._all_answered()

    def disconnected(self) -> None:
        """The connection is lost."""
        self._connected = False
        self._unanswered = None
        self._resumption.disconnected()
        self._requests.clear()
        for channel in self._channels.values():
            channel.disconnected()

    def close(self, error: ConnectionLost | ConnectionRefused) -> list[Effect]:
        """The client has ended: end all local subscriptions, including those that have not begun."""
        self._error = error
        cursors = [cursor for channel in self._channels.values() for cursor in channel.cursors]
        for cursor in cursors:
            cursor.move(CursorEvent.ENDED)
        self._channels.clear()
        self._requests.clear()
        return [End(cursor, error) for cursor in cursors]

    # --- local subscriptions ------------------------------------------------------------------------------------

    def subscribe(self, cursors: Iterable[Cursor]) -> list[Effect]:
        """Begin a local subscription: `Begin` or `End` follows for each of its cursors."""
        if self._error is not None:
            return [End(cursor, self._error) for cursor in cursors]
        return [effect for cursor in cursors for effect in self._channel(cursor.channel).join(cursor)]

    def unsubscribe(self, cursors: Iterable[Cursor]) -> list[Effect]:
        """End a local subscription. Channels without another one are unsubscribed."""
        effects: list[Effect] = []
        for cursor in cursors:
            channel = self._channels.get(cursor.channel)
            if channel is not None:
                effects += channel.leave(cursor)
                if not channel.cursors:
                    del self._channels[cursor.channel]
                    effects += self._answered(cursor.channel)
        return effects

    def _channel(self, name: str) -> ClientChannel:
        channel = self._channels.get(name)
        if channel is None:
            pace = Backoff(base=0.05, cap=2.0, uniform=self._uniform)
            channel = self._channels[name] = ClientChannel(name, self._requests, pace)
            if self._resumption.under_way:
                channel.resume()  # it may be part of the session, though it was left meanwhile
            elif self._connected:
                channel.connected()
        return channel

    # --- what the server says -----------------------------------------------------------------------------------

    def receive(self, envelope: Envelope) -> list[Effect]:
        """A `pub` or `gap`. It is ignored if neither the channel nor its namespace has a local subscription."""
        name = envelope.channel or ""
        pattern = None if is_pattern(name) else self._channels.get(pattern_of(name))
        own = None if _is_overheard(envelope) else self._channels.get(name)
        effects = list[Effect]()
        if pattern is not None and (own is None or own.is_new(envelope)):
            effects += pattern.overhear(envelope, [] if own is None else own.cursors)
        if own is not None:
            effects += own.receive_gap(envelope) if envelope.type == MessageType.GAP else own.receive(envelope)
        return effects

    def lose(self, channel: str, error: ServerError) -> list[Effect]:
        """The server has ended the subscription to a channel: the client has lost its right to it."""
        found = self._channels.pop(channel, None)
        if found is None:
            return []
        self._requests.drop(found)
        cursors = [*found.cursors]
        for cursor in cursors:
            cursor.move(CursorEvent.ENDED)
        return [*(End(cursor, error) for cursor in cursors), *self._answered(channel)]

    def answer(self, reply: Envelope, now: float) -> list[Effect] | None:
        """An `ok`, `err` or `pong`; None if it does not answer a command of ours."""
        event = self._resumption.take(reply)
        if event is not None:
            return self._end_resumption() if event is ResumptionEvent.ANSWERED else []
        if self._resumption.concerns(reply):
            return self._resume(reply.channel or "", reply, now)
        channel = self._requests.pop(reply.id)
        return None if channel is None else self._settle(channel, reply, now)

    def _settle(self, channel: ClientChannel, reply: Envelope, now: float) -> list[Effect]:
        if reply.type == MessageType.ERR:
            effects = channel.refuse(server_error(reply), now)
        else:
            self.learn(channel.channel, reply)
            effects = channel.accept(reply)
        return effects + self._answered(channel.channel)

    def _resume(self, name: str, reply: Envelope, now: float) -> list[Effect]:
        """The answer for a channel of the session. If no local subscription goes on there, the server had not noted yet
        that the channel was left: it is left again, and new local subscriptions begin as on any connection.
        """
        channel, unsub = self._channels.get(name), Send(Envelope(MessageType.UNSUB, channel=name))
        if channel is None:
            return [unsub] if reply.type == MessageType.OK and not self._resumption.is_routed(name) else []
        if channel.state is not ChannelState.RESUMING:
            return []
        if reply.type == MessageType.OK and not channel.goes_on:
            return [unsub, *channel.miss()]
        return self._settle(channel, reply, now)

    def _end_resumption(self) -> list[Effect]:
        """Whatever was not part of the session is subscribed by itself: all of it, if there was none."""
        missed = [channel for channel in self._channels.values() if channel.state is ChannelState.RESUMING]
        effects = [effect for channel in missed for effect in channel.miss()]
        idle = {channel.channel for channel in missed if channel.state is not ChannelState.ASKING}
        self._unanswered = (self._unanswered or set()) - idle
        return effects + self._all_answered()

    def refuse(self, command: Envelope, error: ServerError, now: float) -> list[Effect]:
        """A command could not be sent, because the server could only refuse it."""
        if self._resumption.take(command) is ResumptionEvent.ANSWERED:
            return self._end_resumption()
        channel = self._requests.pop(command.id)
        return [] if channel is None else channel.refuse(error, now) + self._answered(channel.channel)

    def ask_again(self, channel: str, now: float) -> list[Effect]:
        """The time of an `AskAgain` has come."""
        found = self._channels.get(channel)
        return [] if found is None else found.ask_again(now)

    def _answered(self, channel: str) -> list[Effect]:
        """A channel has been answered, or needs no answer any more."""
        if self._unanswered is None or channel not in self._unanswered:
            return []
        self._unanswered.remove(channel)
        return self._all_answered()

    def _all_answered(self) -> list[Effect]:
        if self._unanswered is None or self._unanswered or self._resumption.under_way:
            return []
        self._unanswered = None
        return [Resumed()]

    # --- durable namespaces -------------------------------------------------------------------------------------

    def learn(self, channel: str, reply: Envelope) -> None:
        """Take from an `ok` to a `sub` or `pub` whether the channel's namespace is durable."""
        if reply.offset is not None:
            self._durable.add(namespace_of(channel))

    def is_durable(self, channel: str) -> bool:
        """Whether an answer has said that the channel's namespace is durable."""
        return namespace_of(channel) in self._durable


def _is_overheard(envelope: Envelope) -> bool:
    """Whether a stored message came because of a pattern alone, of ours or of the route. It has no chain, so it says
    nothing of what is before it, and has no place in the sequence of its channel.
    """
    stored = envelope.type == MessageType.PUB and envelope.offset is not None
    return stored and envelope.previous is None and envelope.event != TaskEvent.SNAPSHOT
