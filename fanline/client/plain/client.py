"""The client for programs without an event loop: what `with fanline.Client(...) as client:` gives."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, overload

from fanline.client import arguments
from fanline.client.arguments import StoredPositions
from fanline.client.machine import commands
from fanline.client.machine.commands import Command, Result
from fanline.client.machine.wire import V1Dialect
from fanline.client.message import Gap, Message, PastMessages, Position, Published
from fanline.client.plain.presence_view import PlainPresenceView
from fanline.client.plain.subscription import PlainSubscription
from fanline.client.plain.task_view import PlainTaskView
from fanline.client.token_source import TokenSource
from fanline.protocol.messages.answers import PresenceData

if TYPE_CHECKING:  # what follows imports asyncio, which a program may never need
    from fanline.client.shells.plain_shell import PlainShell


class PlainClient:
    """A Fanline client without `async`: the calls of Client, which says what each promises, but plain ones.

    with fanline.Client("ws://127.0.0.1:8080/ws") as client:
        with client.subscribe("news:all") as messages:
            for message in messages:
                print(message.data)

    A thread of its own keeps the connection, so that the program hears of a loss and comes back while it does other
    things. Any thread may use it. Calls wait for as long as it takes, or `timeout` seconds: then they raise
    TimeoutError, and what was asked may have been done. Ctrl-C ends a call in the same way. A process that was forked
    cannot use its parent's client, and gevent's patches are refused on entering.
    """

    def __init__(self, url: str, dialect: V1Dialect, tokens: TokenSource, notice: Callable[[str], None]) -> None:
        self.url = url
        self._arguments = (url, dialect, tokens, notice)
        self._shell: PlainShell

    def _open(self) -> None:
        from fanline.client.shells.plain_shell import PlainShell

        self._shell = PlainShell(*self._arguments)
        self._shell.enter_client()

    def _close(self) -> None:
        self._shell.leave_client()

    def _ask(self, command: Command[Result], timeout: float | None) -> Result:
        answer, _ = self._shell.request(command, timeout)
        return answer

    @property
    def user(self) -> str | None:
        """The user as which the server knows this client; None without a token."""
        return self._shell.user

    @overload
    def subscribe(
        self,
        *channels: str,
        last: int | None = None,
        start: bool = False,
        positions: StoredPositions | None = None,
        gaps: Literal[False] = False,
        buffer: int = 1024,
        timeout: float | None = None,
    ) -> PlainSubscription[Message]: ...

    @overload
    def subscribe(
        self,
        *channels: str,
        last: int | None = None,
        start: bool = False,
        positions: StoredPositions | None = None,
        gaps: Literal[True],
        buffer: int = 1024,
        timeout: float | None = None,
    ) -> PlainSubscription[Message | Gap]: ...

    def subscribe(
        self,
        *channels: str,
        last: int | None = None,
        start: bool = False,
        positions: StoredPositions | None = None,
        gaps: bool = False,
        buffer: int = 1024,
        timeout: float | None = None,
    ) -> PlainSubscription[Any]:
        """A subscription to one or more channels: `with client.subscribe("task:42") as messages:`. The arguments are
        those of `Client.subscribe`; `timeout` is for entering.
        """
        starts = arguments.start_positions(channels, last, start=start, positions=positions)
        return PlainSubscription(self._shell, starts, buffer, gaps=gaps, timeout=timeout)

    def publish(
        self,
        channel: str,
        data: Any,
        *,
        event: str | None = None,
        x: Mapping[str, Any] | None = None,
        to_others: bool = False,
        deduplication_id: str | None = None,
        timeout: float | None = None,
    ) -> Published:
        """Publish `data` and wait for the answer: on a durable channel that it is stored, else that the bus has it. See
        `Client.publish`.
        """
        command = commands.publish(
            channel, data, event=event, x=x, to_others=to_others, deduplication_id=deduplication_id
        )
        return self._ask(command, timeout)

    def history(
        self,
        channel: str,
        *,
        limit: int = 100,
        before: Position | None = None,
        after: Position | None = None,
        timeout: float | None = None,
    ) -> PastMessages:
        """The newest `limit` (1 to 500) messages that are stored of a durable channel, those before a position, or the
        oldest after one: page by page, `before=page.next` or `after=page.next`. See `Client.history`.
        """
        return self._ask(commands.history(channel, limit=limit, before=before, after=after), timeout)

    def inbox(
        self, user: str | None = None, *, buffer: int = 1024, timeout: float | None = None
    ) -> PlainSubscription[Message]:
        """The messages for a user, by default the one whom the token names, that no device of theirs has acknowledged,
        oldest first, then new ones. See `Client.inbox`; `timeout` is for entering.
        """
        return self.subscribe(arguments.inbox_of(user, self.user), buffer=buffer, timeout=timeout)

    def ack(self, message: Message, *, timeout: float | None = None) -> None:
        """Acknowledge an inbox up to this message. See `Client.ack`."""
        self._ask(commands.ack(message), timeout)

    def task(
        self,
        id: str,  # noqa: A002  # the word of the protocol
        *,
        lines: int = 200,
        buffer: int = 1024,
        follow: bool = False,
        by: str | None = None,
        timeout: float | None = None,
    ) -> PlainTaskView:
        """The task `id`, to watch and to control: `with client.task("build-42") as task:`. See `Client.task` and
        TaskView; `timeout` is for entering.
        """
        starts = arguments.task_start(id, lines)
        messages: PlainSubscription[Message | Gap] = PlainSubscription(
            self._shell, starts, buffer, gaps=True, timeout=timeout
        )
        call = partial(self._call, f"task:{id}")
        return PlainTaskView(messages, call, lines, follow=follow, by=by, timeout=timeout)

    def presence(self, channel: str | None = None, *, timeout: float | None = None) -> PresenceData:
        """Who is on a channel; without one, how many users the whole system has. See `Client.presence`."""
        return self._ask(commands.presence(channel), timeout)

    def watch_presence(self, channel: str, *, buffer: int = 1024, timeout: float | None = None) -> PlainPresenceView:
        """Who is on a channel, and who comes and goes: `with client.watch_presence("room:lobby") as room:`. See
        PresenceView; `timeout` is for entering.
        """
        return PlainPresenceView(self._shell, channel, buffer, timeout)

    def call(self, channel: str, verb: str, data: Any = None, *, timeout: float | None = None) -> Any:
        """Send a verb to whatever runs a channel, such as the producer of a task; returns the data of its answer. See
        `Client.call`.
        """
        return self._call(channel, verb, data, timeout)

    def _call(self, channel: str, verb: str, data: Any, timeout: float | None) -> Any:
        return self._ask(commands.call(channel, verb, data), timeout)

    def ping(self, *, timeout: float | None = None) -> float:
        """Seconds of one round trip to the server. See `Client.ping`."""
        _, request = self._shell.request(commands.ping(), timeout)
        return self._shell.now() - (request.sent_at or 0.0)
