"""Who is on a channel, for plain code: kept up to date, with an iterator of what changes."""

from types import TracebackType
from typing import TYPE_CHECKING, Self

from fanline.client.machine.presence import PresenceNotice
from fanline.client.presence_view import PresentUsers
from fanline.protocol.messages.answers import PresentUser

if TYPE_CHECKING:  # what follows imports asyncio, which a program may never need
    from fanline.client.shells.plain_shell import PlainShell


class PlainPresenceView(PresentUsers):
    """Created by `PlainClient.watch_presence`: what PresenceView is, for `with` and `for`. It says what is promised."""

    def __init__(self, shell: "PlainShell", channel: str, buffer: int, timeout: float | None) -> None:
        super().__init__(shell.bell(), channel, buffer)
        self._shell = shell
        self._timeout = timeout

    @property
    def users(self) -> dict[str, PresentUser]:
        """Those who are on the channel now, by their ids; empty if it is large."""
        return dict(super().users)  # the client's thread changes the original

    def __enter__(self) -> Self:
        self._enter_once()
        try:
            self._shell.enter(self._messages, self._bell, self._timeout)
            self._shell.view(self._roster, self._bell, self._timeout)
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        self._shell.leave(self._messages, roster=self._roster)

    def __iter__(self) -> Self:
        self._check_entered()
        return self

    def __next__(self) -> PresenceNotice:
        return self.receive()

    def receive(self, timeout: float | None = None) -> PresenceNotice:
        """The next notice. Raises TimeoutError if none comes within `timeout` seconds, and what ends the iterator."""
        self._check_entered()
        unread = self._roster.unread
        return self._shell.wait_for(unread.take, lambda: unread.readable, self._bell, timeout)
