"""Who is on a channel, kept up to date, as an async iterator of what changes."""

from types import TracebackType
from typing import Self

import trio

from fanline.client.machine.local_subscription import UnreadSubscription
from fanline.client.machine.presence import PresenceNotice, PresenceRoster
from fanline.client.shell import Bell, TrioShell
from fanline.protocol.messages import PresentUser


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

    def __init__(self, shell: TrioShell, channel: str, buffer: int) -> None:
        self.channel = channel
        self._shell = shell
        self._bell = Bell()
        self._roster = PresenceRoster(channel, buffer, self._bell.ring)
        self._messages = UnreadSubscription(channel, self._bell.ring, self._roster.end)

    @property
    def users(self) -> dict[str, PresentUser]:
        """Those who are on the channel, by their ids; empty if it is large."""
        return self._roster.users

    @property
    def count(self) -> int:
        """How many users are on the channel."""
        return self._roster.count

    @property
    def large(self) -> bool:
        """Whether there are so many that they are not named."""
        return self._roster.large

    async def __aenter__(self) -> Self:
        await self._shell.enter(self._messages, self._bell)
        try:
            await self._shell.view(self._roster, self._bell)
        except BaseException:
            self._leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        self._shell.machine.leave_view(self._roster)
        self._shell.leave(self._messages)
        self._roster.unread.leave()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> PresenceNotice:
        await trio.lowlevel.checkpoint()
        while (notice := self._roster.unread.take()) is None:
            await self._bell.wait()
        return notice
