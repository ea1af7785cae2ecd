"""Who is on a channel, as the views of a program have it, and what the server is asked for them. Without I/O."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Literal
from uuid import uuid4

from fanline.client.control import read_control, server_error
from fanline.client.machine.unread import UnreadItems
from fanline.errors import FanlineError, ServerError
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.messages.answers import PresenceData, PresentUser
from fanline.protocol.messages.commands import Subscribe

NOTICES = (MessageType.JOIN, MessageType.LEAVE, MessageType.PRESENCE)
"""What the server says of its own accord."""


@dataclass(frozen=True, slots=True)
class PresenceNotice:
    """What a PresenceView yields, by its `kind`: a `user` comes ("join") or goes ("leave"), or, of a large channel,
    only the `count` of its users has changed ("counts").
    """

    kind: Literal["join", "leave", "counts"]
    """"counts": the channel is so large that its users are not named."""
    user: PresentUser | None
    count: int
    """How many users are on the channel now."""


class PresenceRoster:
    """One view's: who is on the channel, and the notices that its iterator has not taken yet."""

    def __init__(self, channel: str, buffer: int, wake: Callable[[], None]) -> None:
        self.channel = channel
        self.users: dict[str, PresentUser] = {}
        self.count = 0
        self.large = False
        self.unread = UnreadItems[PresenceNotice](buffer, f"notices of {channel}", wake)
        self._begun = False
        self._wake = wake

    @property
    def begun(self) -> bool:
        """Whether it is known who is there. Raises the error that ended the view before."""
        if not self._begun and self.unread.error is not None:
            raise copy(self.unread.error)
        return self._begun

    def replace(self, data: PresenceData) -> None:
        """All users on the channel now; the first time, that is not news."""
        users = {user.user_id: user for user in data.users or ()}
        if not self._begun:
            self.users, self.count, self.large, self._begun = users, data.count, data.users is None, True
            self._wake()
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
        """A user has come; for one who is listed, that is not news."""
        if self._begun and user.user_id not in self.users:
            self.users[user.user_id] = user
            self.count = len(self.users)
            self._tell("join", user)

    def part(self, user: PresentUser) -> None:
        """A user is gone; for one who is not listed, that is not news."""
        if self.users.pop(user.user_id, None) is not None:
            self.count = len(self.users)
            self._tell("leave", user)

    def end(self, error: FanlineError) -> None:
        """End the view's iterator with `error`, after what it still holds."""
        self.unread.end(error)

    def _tell(self, kind: Literal["join", "leave", "counts"], user: PresentUser | None) -> None:
        self.unread.put(PresenceNotice(kind, user, self.count), size=0)  # they are small


class PresenceViews:
    """The rosters of one client. On each connection, the server is asked for notices, and for who is there."""

    def __init__(self) -> None:
        self._rosters: list[PresenceRoster] = []
        self._error: FanlineError | None = None  # what ended the client
        self._asked: dict[str, tuple[str, PresenceRoster]] = {}  # id of a command -> type, view

    @property
    def waiting(self) -> bool:
        """Whether an answer is to come."""
        return bool(self._asked)

    def enter(self, roster: PresenceRoster) -> None:
        if self._error is not None:
            roster.end(self._error)
        else:
            self._rosters.append(roster)

    def leave(self, roster: PresenceRoster) -> None:
        if roster in self._rosters:
            self._rosters.remove(roster)
        self._asked = {request: each for request, each in self._asked.items() if each[1] is not roster}

    def ask_all(self) -> list[Envelope]:
        """The commands of a new connection."""
        return [command for roster in self._rosters for command in self.ask(roster)]

    def ask(self, roster: PresenceRoster) -> list[Envelope]:
        """The commands by which a view learns who is there now, and who comes and goes from now on."""
        notices = Subscribe(presence=True).fields()
        commands = [
            Envelope(MessageType.SUB, channel=roster.channel, id=uuid4().hex, data=notices),
            Envelope(MessageType.PRESENCE, channel=roster.channel, id=uuid4().hex),
        ]
        self._asked.update((command.id or "", (command.type, roster)) for command in commands)
        return commands

    def disconnected(self) -> None:
        """No more answers will come."""
        self._asked.clear()

    def answer(self, reply: Envelope) -> bool:
        """Take an `ok` or `err`; whether it was for the views."""
        kind, roster = self._asked.pop(reply.id or "", ("", None))
        if roster is not None:
            if reply.type == MessageType.ERR:
                self._end(roster, server_error(reply))
            elif kind == MessageType.PRESENCE:
                roster.replace(read_control(PresenceData, reply))
            return True
        if reply.type != MessageType.ERR or reply.id is not None:
            return False
        concerned = self._viewing(reply)
        for each in concerned:  # the right to look was taken away
            self._end(each, server_error(reply))
        return bool(concerned)

    def refuse(self, command: Envelope, error: ServerError) -> None:
        """A command could not be sent, because the server could only refuse it."""
        _, roster = self._asked.pop(command.id or "", ("", None))
        if roster is not None:
            self._end(roster, error)

    def tell(self, notice: Envelope) -> None:
        """Take a notice of the server."""
        for roster in self._viewing(notice):
            if notice.type == MessageType.PRESENCE:
                roster.replace(read_control(PresenceData, notice))
            elif notice.type == MessageType.JOIN:
                roster.join(read_control(PresentUser, notice))
            else:
                roster.part(read_control(PresentUser, notice))

    def close(self, error: FanlineError) -> None:
        """The client is over."""
        self._error = error
        for roster in self._rosters:
            roster.end(error)
        self._asked.clear()

    def _viewing(self, envelope: Envelope) -> list[PresenceRoster]:
        return [roster for roster in self._rosters if roster.channel == envelope.channel]

    def _end(self, roster: PresenceRoster, error: ServerError) -> None:
        roster.end(error)
        self.leave(roster)
