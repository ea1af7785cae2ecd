"""The client: one connection, reopened whenever it is lost, for any number of subscriptions and publishers."""

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, overload

from fanline.client import arguments
from fanline.client.arguments import Codec, StoredPositions
from fanline.client.machine import commands
from fanline.client.message import Gap, Message, PastMessages, Position, Published
from fanline.client.plain.client import PlainClient
from fanline.client.presence_view import PresenceView
from fanline.client.shells.choice import running_loop, shell_class
from fanline.client.shells.shell import ClientShell
from fanline.client.subscription import Subscription
from fanline.client.task_view import TaskView
from fanline.client.token_source import Token, TokenSource
from fanline.local import TOKEN_VARIABLE, server_url
from fanline.protocol.messages.answers import PresenceData


class Client:
    """A Fanline client, for asyncio, Trio, and programs without an event loop. Enter it once:

    async with fanline.Client("ws://127.0.0.1:8080/ws") as client:   # under asyncio or Trio
        await client.publish("news:all", {"title": "hello"})

    with fanline.Client("ws://127.0.0.1:8080/ws") as client:         # in plain code: `client` is a PlainClient
        client.publish("news:all", {"title": "hello"})

    Without `url` it is that of the variable FANLINE_URL, or else of the `fanline serve` on this machine, and the token
    is by default that of FANLINE_TOKEN.

    Entering connects, and raises ConnectionRefused or ConnectionLost if that fails. A connection that is lost later is
    reopened, with full-jitter back-off of at most 15 seconds or when the server has said, and everything is subscribed
    again before any other command is sent, in one step if the server still has the client's session: durable channels
    from where they were, so that nothing is missed or repeated; what an ephemeral channel had in between is missed. A
    refusal that would only be repeated (a close code or HTTP status that says so) ends the client: every call and every
    subscription then raises that error with `final` set.

    Timeouts and cancellation are the loop's own (`asyncio.timeout`, `trio.fail_after`); a call that is cancelled may
    have been done, and an iterator that is cancelled has lost nothing. Leaving the block, in whatever way, ends what
    still waits with ConnectionLost. A client belongs to the event loop and the process in which it was entered: used
    elsewhere it raises RuntimeError, as it does before it is entered.

    `codec` is "json" or "cbor": the same messages in text or binary form; byte strings survive only in cbor.
    `notice` is called with a sentence for people whenever an established connection is lost, and when it is back; what
    it raises is logged.
    `token` is what the server wants to see, or a function, plain or async, that returns it: it is called for each
    connection, also after the server did not accept the last token, and whenever the server says that the token ends
    soon, so that the connection goes on with a new one. What it raises on entering is raised there. Later it is a
    warning of the logger "fanline", as is a token that the server does not accept; the client goes on with the
    connection it has, or tries again with back-off. In plain code, `notice` and `token` are called in another thread.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        codec: Codec = "json",
        notice: Callable[[str], None] | None = None,
        token: Token = None,
    ) -> None:
        self.url = server_url(url)
        if url is None and token is None:
            token = os.environ.get(TOKEN_VARIABLE) or None
        self._arguments = (self.url, arguments.dialect_of(codec), TokenSource(token), notice or _say_nothing)
        self._entered: Literal["", "async with", "with"] = ""
        self._plain: PlainClient
        self._life: AbstractAsyncContextManager[None]
        self._running: ClientShell | None = None

    @property
    def user(self) -> str | None:
        """The user whom the server takes this client for; None without a token, and before it is entered."""
        return None if self._running is None else self._running.machine.user

    async def __aenter__(self) -> Self:
        self._enter_once("async with")
        self._running = shell_class()(*self._arguments)
        self._life = self._running.live()
        await self._life.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._life.__aexit__(kind, error, traceback)

    def __enter__(self) -> PlainClient:
        loop = running_loop()
        if loop is not None:
            raise RuntimeError(
                f"`with` would block the event loop of {loop}: write `async with fanline.Client(...) as client:`"
            )
        self._enter_once("with")
        self._plain = PlainClient(*self._arguments)
        self._plain._open()  # noqa: SLF001  # one part
        return self._plain

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._plain._close()  # noqa: SLF001  # one part

    def _enter_once(self, how: Literal["async with", "with"]) -> None:
        if self._entered:
            raise RuntimeError("a client is entered once: make another one")
        self._entered = how

    @property
    def _shell(self) -> ClientShell:
        if self._running is None and self._entered == "with":
            raise RuntimeError("use the client that `with fanline.Client(...) as client:` gives: it is a PlainClient")
        if self._running is None:
            raise RuntimeError("enter the client first: `async with fanline.Client(...) as client:`")
        return self._running

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
        starts = arguments.start_positions(channels, last, start=start, positions=positions)
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
        return self.subscribe(arguments.inbox_of(user, self._shell.machine.user), buffer=buffer)

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
        starts = arguments.task_start(id, lines)
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
        return self._shell.now() - (request.sent_at or 0.0)


def _say_nothing(sentence: str) -> None:
    """Nobody wants to know."""
