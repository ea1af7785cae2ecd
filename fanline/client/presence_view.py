"""Who is on a channel, kept up to date: the views of one client, and what the server tells them."""

import math
from collections.abc import Awaitable, Callable
from copy import copy
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self
from uuid import uuid4

import trio

from fanline.client.connection import ServerConnection
from fanline.client.control import read_control, server_error
from fanline.client.message import Gap, Message
from fanline.client.subscription import OVERRUN, Subscription
from fanline.client.subscription_driver import SubscriptionDriver
from fanline.client.subscriptions.start import StartPosition
from fanline.errors import ConnectionLost, FanlineError, ServerError, SlowConsumer
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.messages import PresenceData, PresentUser, Subscribe

_NOTICES = (MessageType.JOIN, MessageType.LEAVE, MessageType.PRESENCE)
Connected = Callable[[], Awaitable[ServerConnection]]
"""Waits for the open connection; raises what ended the client."""


@dataclass(frozen=True, slots=True)
class PresenceNotice:
    """What a PresenceView yields."""

    kind: Literal["join", "leave", "counts"]
    """"counts": the channel is so large that its users are not named."""
    user: PresentUser | None
    count: int
    """How many users are on the channel now."""


class PresenceView:
    """Created by `Client.watch_presence`; enter it, then iterate:

    async with client.watch_presence("room:lobby") as room:
        print(sorted(room.users))
        async for notice in room:
            print(notice.kind, notice.user, room.count)

    Entering subscribes to the channel, so that the client's own user is on it, too, and returns with those who are
    there: `users`, by their ids. It raises ServerError if the server refuses. From then on `users` and `count` follow
    the server, whether the iterator is read or not. For one user, "join" and "leave" alternate.

    A lost connection is reopened, and what has changed meanwhile comes as notices. Of a large channel (more than 1,000
    users, unless the server says otherwise) `users` is empty, `large` is true, and notices have the kind "counts".
    The iterator ends only with an error, as that of a Subscription does.
    """

    def __init__(self, views: "PresenceViews", channel: str, buffer: int) -> None:
        self.channel = channel
        self.users: dict[str, PresentUser] = {}
        """Those who are on the channel; empty if it is large."""
        self.count = 0
        """How many users are on the channel."""
        self.large = False
        self._views = views
        self._most = buffer * OVERRUN
        self._messages = _Unread(views.driver, channel, self.end)
        self._error: FanlineError | None = None
        self._begun = False
        self._put, self._take = trio.open_memory_channel[PresenceNotice](math.inf)

    async def __aenter__(self) -> Self:
        await self._messages.__aenter__()
        try:
            await self._views.enter(self)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._views.leave(self)
        await self._messages.__aexit__(kind, error, traceback)
        self._take.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> PresenceNotice:
        try:
            return await self._take.receive()
        except trio.EndOfChannel:
            assert self._error is not None
            raise copy(self._error) from None

    # --- for PresenceViews --------------------------------------------------------------------------------------

    def replace(self, data: PresenceData) -> None:
        """All who are on the channel now; the first time, that is no news."""
        users = {user.user_id: user for user in data.users or ()}
        if not self._begun:
            self.users, self.count, self.large, self._begun = users, data.count, data.users is None, True
            return
        if data.users is None:
            self.users, self.count, self.large = {}, data.count, True
            self._tell("counts", None)
            return
        if not self.large:
            for user in [user for name, user in self.users.items() if name not in users]:
                self.part(user)
            for name, user in users.items():
                if name not in self.users:
                    self.join(user)
        was_large, self.users, self.count, self.large = self.large, users, data.count, False
        if was_large:
            self._tell("counts", None)

    def join(self, user: PresentUser) -> None:
        """A user has come; one who is listed is no news."""
        if self._begun and user.user_id not in self.users:
            self.users[user.user_id] = user
            self.count = len(self.users)
            self._tell("join", user)

    def part(self, user: PresentUser) -> None:
        """A user is gone; one who is not listed is no news."""
        if self.users.pop(user.user_id, None) is not None:
            self.count = len(self.users)
            self._tell("leave", user)

    def end(self, error: FanlineError) -> None:
        """End the iterator with `error`, after what it still holds."""
        if self._error is None:
            self._error = error
            self._put.close()

    def _tell(self, kind: Literal["join", "leave", "counts"], user: PresentUser | None) -> None:
        if self._error is not None:
            return
        waiting = self._put.statistics().current_buffer_used
        if waiting >= self._most:
            self.end(SlowConsumer(f"{waiting} notices of {self.channel} were waiting to be taken"))
        else:
            self._put.send_nowait(PresenceNotice(kind, user, self.count))


class _Unread(Subscription[Message | Gap]):
    """Keeps the channel subscribed, and takes no messages."""

    def __init__(self, driver: SubscriptionDriver, channel: str, ended: Callable[[FanlineError], None]) -> None:
        super().__init__(driver, {channel: StartPosition()}, 1, gaps=True)
        self._ended = ended

    def put(self, item: Message | Gap) -> None:
        """Drop it."""

    def end(self, error: FanlineError) -> None:
        super().end(error)
        self._ended(error)


class PresenceViews:
    """All views of one client."""

    def __init__(self, driver: SubscriptionDriver, connected: Connected) -> None:
        self.driver = driver
        self._connected = connected
        self._views: list[PresenceView] = []
        self._queries: dict[str, PresenceView] = {}  # by the ids of those under way

    async def enter(self, view: PresenceView) -> None:
        """Find out who is there, and go on from there. ServerError, or what ended the client."""
        self._views.append(view)
        while True:
            connection = await self._connected()
            try:
                await self._ask(connection, view)
            except ConnectionLost:
                continue
            return

    def leave(self, view: PresenceView) -> None:
        """The view is left."""
        if view in self._views:
            self._views.remove(view)

    async def resume(self, connection: ServerConnection) -> None:
        """There is a new connection: ask for what has changed."""
        for view in list(self._views):
            try:
                await self._ask(connection, view)
            except ServerError as error:
                view.end(error)
            except ConnectionLost:
                return

    async def _ask(self, connection: ServerConnection, view: PresenceView) -> None:
        """Have a view told who comes and goes from now on, and who is there now."""
        self.driver.read_on()
        notices, query = Subscribe(presence=True).fields(), uuid4().hex
        await connection.request(Envelope(MessageType.SUB, channel=view.channel, id=uuid4().hex, data=notices))
        self._queries[query] = view
        try:
            await connection.request(Envelope(MessageType.PRESENCE, channel=view.channel, id=query))
        finally:
            self._queries.pop(query, None)

    def take(self, envelope: Envelope) -> bool:
        """Take an envelope of the server; whether it was for the views alone."""
        if envelope.type == MessageType.OK and envelope.id in self._queries:
            # Here and now, so that notices that come after it are taken after it.
            self._queries.pop(envelope.id).replace(read_control(PresenceData, envelope))
            return False
        concerned = [view for view in self._views if view.channel == envelope.channel]
        if envelope.type == MessageType.ERR and envelope.id is None:  # the right to look was taken away
            for view in concerned:
                view.end(server_error(envelope))
            return bool(concerned)
        if envelope.type not in _NOTICES:
            return False
        for view in concerned:
            if envelope.type == MessageType.PRESENCE:
                view.replace(read_control(PresenceData, envelope))
            elif envelope.type == MessageType.JOIN:
                view.join(read_control(PresentUser, envelope))
            else:
                view.part(read_control(PresentUser, envelope))
        return True
