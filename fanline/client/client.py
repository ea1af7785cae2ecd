"""The client: one connection, reopened whenever it is lost, for any number of subscriptions and publishers."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, overload
from urllib.parse import urlsplit

import trio

from fanline.client.machine import commands
from fanline.client.machine.wire import V1Dialect
from fanline.client.message import Gap, Message, PastMessages, Position, Published
from fanline.client.presence_view import PresenceView
from fanline.client.shell import TrioShell
from fanline.client.subscription import Subscription
from fanline.client.subscriptions.start import StartPosition
from fanline.client.task_view import TaskView
from fanline.client.token_source import Token, TokenSource
from fanline.protocol.channels import is_pattern
from fanline.protocol.dialects import CBOR, JSON
from fanline.protocol.messages import MAX_LINES, PresenceData, Subscribe

Codec = Literal["json", "cbor"]
StoredPositions = Mapping[str, Position | Sequence[Any]]
"""What `Subscription.positions` returned, or what JSON made of it."""
_DIALECTS: dict[str, V1Dialect] = {"json": JSON, "cbor": CBOR}


class Client:
    """A Fanline client for Trio. Enter it once: `async with fanline.Client("ws://127.0.0.1:8080/ws") as client:`.

    Entering connects, and raises ConnectionRefused or ConnectionLost if that fails. A connection that is lost later is
    reopened, with full-jitter back-off of at most 15 seconds or when the server has said, and everything is subscribed
    again before any other command is sent, in one step if the server still has the client's session: durable channels
    from where they were, so that nothing is missed or repeated; what an ephemeral channel had in between is missed. A
    refusal that would only be repeated (a close code or HTTP status that says so) ends the client: every call and every
    subscription then raises that error with `final` set. Timeouts are the caller's: `with trio.fail_after(5): await
    client.publish(...)`.

    `codec` is "json" or "cbor": the same messages in text or binary form; byte strings survive only in cbor.
    `notice` is called with a sentence for people whenever an established connection is lost, and when it is back.
    `token` is what the server wants to see, or a function, plain or async, that returns it: it is called for each
    connection, also after the server did not accept the last token, and whenever the server says that the token ends
    soon, so that the connection goes on with a new one. What it raises on entering is raised there. Later it is a
    warning of the logger "fanline", as is a token that the server does not accept; the client goes on with the
    connection it has, or tries again with back-off.
    """

    def __init__(
        self,
        url: str,
        *,
        codec: Codec = "json",
        notice: Callable[[str], None] = lambda sentence: None,
        token: Token = None,
    ) -> None:
        if codec not in _DIALECTS:
            raise ValueError(f"codec is json or cbor, not {codec!r}")
        parts = urlsplit(url)
        if parts.scheme not in ("ws", "wss") or not parts.hostname:
            raise ValueError(f"not a WebSocket URL: {url!r} (expected ws://host:port/ws or wss://...)")
        self.url = url
        self._shell = TrioShell(url, _DIALECTS[codec], TokenSource(token), notice)
        self._life = self._shell.live()

    @property
    def user(self) -> str | None:
        """The user whom the server takes this client for; None without a token, and before it is entered."""
        return self._shell.machine.user

    async def __aenter__(self) -> Self:
        await self._life.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._life.__aexit__(kind, error, traceback)

    @overload
    def subscribe(
        self,
        *channels: str,
        last: int | None = None,
        start: bool = False,
        positions: StoredPositions | None = None,
        gaps: Literal[False] = False,
        buffer: int = 1024,
    ) -> Subscription[Message]: ...

    @overload
    def subscribe(
        self,
        *channels: str,
        last: int | None = None,
        start: bool = False,
        positions: StoredPositions | None = None,
        gaps: Literal[True],
        buffer: int = 1024,
    ) -> Subscription[Message | Gap]: ...

    def subscribe(
        self,
        *channels: str,
        last: int | None = None,
        start: bool = False,
        positions: StoredPositions | None = None,
        gaps: bool = False,
        buffer: int = 1024,
    ) -> Subscription[Any]:
        """A subscription to one or more channels: `async with client.subscribe("task:42") as messages:`.

        By default it gets what is published from now on. A durable channel can begin earlier: with its newest `last`
        messages, with everything that is stored (`start`), or right after its position in `positions`, which is what
        `Subscription.positions` once returned; channels that are not in there begin as the other arguments say. An
        ephemeral channel has no history, and begins now whatever the arguments say.

        "project:*" stands for all channels of a namespace. It begins now, and is not made up for: what passes while the
        client is away is missed without a report, and where the server may have missed something there is a Gap.

        `gaps=True`: besides Messages, the iterator yields a Gap wherever something is missing. `buffer` is in messages.
        See Subscription for what entering, iterating and leaving do.
        """
        if not channels or buffer < 1:
            raise ValueError("subscribe to at least one channel, with room for at least one message")
        if start and last is not None:
            raise ValueError("give last or start, not both")
        history = Subscribe(last=last, start=start) if start or last is not None else None
        starts = {each: StartPosition(history=None if is_pattern(each) else history) for each in channels}
        stored = {channel: StartPosition(Position(*place)) for channel, place in (positions or {}).items()}
        starts |= {channel: stored[channel] for channel in channels if channel in stored}
        return Subscription(self._shell, starts, buffer, gaps=gaps)

    async def publish(
        self,
        channel: str,
        data: Any,
        *,
        event: str | None = None,
        x: Mapping[str, Any] | None = None,
        to_others: bool = False,
        deduplication_id: str | None = None,
    ) -> Published:
        """Publish `data` and wait for the answer: on a durable channel that it is stored, else that the bus has it.

        While disconnected it waits for the connection. If a connection ends before the answer, the outcome depends on
        the channel. A durable channel takes the same de-duplication id only once, so the message is sent again until
        there is an answer. An ephemeral channel would deliver it twice: ConnectionLost is raised, and it may have been
        done. The same is raised while this client has not had an answer from any channel of the namespace, and if the
        reconnect took so long (100 seconds) that the server may have forgotten the de-duplication id.

        Raises ServerError if the server refuses or cannot store it, TypeError or ValueError for data that JSON and CBOR
        cannot hold. Give a `deduplication_id` (16 to 128 printable characters, such as a UUID) to publish the message
        again yourself: within two minutes, a durable channel stores it only once, and the result says `duplicate`.

        `x`: extra attributes, at most 32 with lower-case keys, together at most 4 KiB. `to_others`: this client does
        not get the message itself, whatever it is subscribed to.
        """
        published, _ = await self._shell.request(
            commands.publish(channel, data, event=event, x=x, to_others=to_others, deduplication_id=deduplication_id)
        )
        return published

    async def history(
        self, channel: str, *, limit: int = 100, before: Position | None = None, after: Position | None = None
    ) -> PastMessages:
        """The newest `limit` (1 to 500) messages that are stored of a durable channel, subscribed to or not; those
        before a position, or the oldest after one. Fewer if they are large.

        Page by page: `before=page.next`, or `after=page.next`, until that is None. Raises ServerError if the server
        refuses or the position is of another epoch. If the connection ends before the answer, it asks again.
        """
        page, _ = await self._shell.request(commands.history(channel, limit=limit, before=before, after=after))
        return page

    def inbox(self, user: str | None = None, *, buffer: int = 1024) -> Subscription[Message]:
        """The messages for a user that no device of theirs has acknowledged, oldest first, then new ones:

        async with client.inbox() as messages:
            async for message in messages:
                ...
                await client.ack(message)

        What is not acknowledged comes again, but only to another subscription: this one gets each message once, across
        every reconnect. `user` is by default the one whom the token names; ValueError if it names none. `buffer` is in
        messages, as for `subscribe`.
        """
        name = user or self.user
        if name is None:
            raise ValueError("whose inbox? The server knows this client by no name; give `user`")
        return self.subscribe(f"user:{name}", buffer=buffer)

    async def ack(self, message: Message) -> None:
        """Acknowledge an inbox (`user:NAME`) up to this message: whoever subscribes to it without a position, on any
        device of the user, begins behind it.

        If the connection ends before the answer, it is sent again. Raises ServerError if it is no message of an inbox
        to which this client is subscribed.
        """
        await self._shell.request(commands.ack(message))

    def task(
        self,
        id: str,  # noqa: A002  # the word of the protocol
        *,
        lines: int = 200,
        buffer: int = 1024,
        follow: bool = False,
        by: str | None = None,
    ) -> TaskView:
        """The task `id`, to watch and to control: `async with client.task("build-42") as task:`. See TaskView.

        It begins with the newest `lines` (0 to 1,000) of the log, and keeps as many. `buffer` is in messages, as for
        `subscribe`. `follow=True`: the iterator does not end with the task, but waits for another attempt. `by`: the
        name under which others see you cancel and answer (at most 64 characters), if the server knows no users.
        """
        if not 0 <= lines <= MAX_LINES or buffer < 1:
            raise ValueError(f"0 to {MAX_LINES} lines, with room for at least one message")
        starts = {f"task:{id}": StartPosition(history=Subscribe(snapshot=True, lines=lines))}
        messages: Subscription[Message | Gap] = Subscription(self._shell, starts, buffer, gaps=True)
        return TaskView(messages, partial(self.call, f"task:{id}"), lines, follow=follow, by=by)

    async def presence(self, channel: str | None = None) -> PresenceData:
        """Who is on a channel: `users`, or None if there are too many to be named; `count`; `connections`. Without a
        channel, how many users the whole system has.

        Raises ServerError if the server refuses or the channel has no presence. If the connection ends before the
        answer, it asks again.
        """
        present, _ = await self._shell.request(commands.presence(channel))
        return present

    def watch_presence(self, channel: str, *, buffer: int = 1024) -> PresenceView:
        """Who is on a channel, and who comes and goes: `async with client.watch_presence("room:lobby") as room:`. See
        PresenceView. `buffer` is in notices, as it is in messages for `subscribe`.
        """
        return PresenceView(self._shell, channel, buffer)

    async def call(self, channel: str, verb: str, data: Any = None) -> Any:
        """Send a verb to whatever runs a channel, such as the producer of a task; returns the data of its answer.

        Raises ServerError if it is refused or nothing runs there, and ConnectionLost if the connection ends before the
        answer: then it may have been done, and it is not sent again. TypeError and ValueError as for `publish`.
        """
        answer, _ = await self._shell.request(commands.call(channel, verb, data))
        return answer

    async def ping(self) -> float:
        """Seconds of one round trip to the server. While disconnected it waits for the connection. ConnectionLost if
        that ends before the answer.
        """
        _, request = await self._shell.request(commands.ping())
        return trio.current_time() - (request.sent_at or 0.0)
