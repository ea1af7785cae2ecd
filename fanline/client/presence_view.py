"""Who is on a channel, kept up to date, as an async iterator of what changes."""

from types import TracebackType
from typing import Self

from fanline.client.entered_once import EnteredOnce
from fanline.client.machine.local_subscription import UnreadSubscription
from fanline.client.machine.presence import PresenceNotice, PresenceRoster
from fanline.client.shells.shell import Bell, ClientShell
from fanline.protocol.messages.answers import PresentUser


class PresentUsers(EnteredOnce):
    """Who is on a channel, in all programs, with an event loop and without."""

    def __init__(self, bell: Bell, channel: str, buffer: int) -> None:
        super().__init__()
        self.channel = channel
        self._bell = bell
        self._roster = PresenceRoster(channel, buffer, bell.ring)
        self._messages = UnreadSubscription(channel, bell.ring, self._roster.end)

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


class PresenceView(PresentUsers):
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

    def __init__(self, shell: ClientShell, channel: str, buffer: int) -> None:
        super().__init__(shell.bell(), channel, buffer)
        self._shell = shell

    async def __aenter__(self) -> Self:
        self._enter_once()
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
        self._shell.leave_view(self._roster)
        self._shell.leave(self._messages)

    def __aiter__(self) -> Self:
        self._check_entered()
        return self

    async def __anext__(self) -> PresenceNotice:
        await self._shell.checkpoint()
        while (notice := self._roster.unread.take()) is None:
            self._check_entered()
            await self._bell.wait()
        return notice
