"""The commands of a program: each waits for its answer, over as many connections as it takes. Without I/O."""

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from copy import copy
from enum import Enum, auto

from fanline.client.control import server_error
from fanline.errors import ConnectionLost, FanlineError
from fanline.protocol.envelope import Envelope, MessageType

STORED_SECONDS = 100.0
"""How long a `pub` is sent again: safely within the two minutes in which the server knows a de-duplication id."""
_numbers = itertools.count()


class Repeat(Enum):
    """Whether a command is sent again if its connection ends before the answer."""

    NEVER = auto()  # it may have been done, and would be done twice
    ALWAYS = auto()  # done twice, it is as if done once
    IF_STORED = auto()  # on a durable channel, which takes the same de-duplication id only once


REPEATS = {
    MessageType.ACK: Repeat.ALWAYS,
    MessageType.CALL: Repeat.NEVER,
    MessageType.HISTORY: Repeat.ALWAYS,
    MessageType.PING: Repeat.NEVER,  # it measures one connection
    MessageType.PRESENCE: Repeat.ALWAYS,
    MessageType.PUB: Repeat.IF_STORED,
}


class ClientRequest:
    """A command, and the answer or the error it has got. `wake` is called when it has."""

    def __init__(self, command: Envelope, wake: Callable[[], None], *, to_others: bool = False) -> None:
        assert command.id is not None
        self.command = command
        self.to_others = to_others
        self.sent_at: float | None = None
        """When it was sent first."""
        self.reply: Envelope | None = None
        self.error: Exception | None = None
        self._number = next(_numbers)
        self._wake = wake

    @property
    def settled(self) -> bool:
        return self.reply is not None or self.error is not None

    @property
    def stores(self) -> bool:
        """Whether repeating it relies on its de-duplication id."""
        return REPEATS[MessageType(self.command.type)] is Repeat.IF_STORED

    def __lt__(self, other: "ClientRequest") -> bool:
        return self._number < other._number

    def settle(self, reply: Envelope) -> None:
        """The server has answered."""
        if reply.type == MessageType.ERR:
            self.fail(server_error(reply))
        else:
            self.reply = reply
            self._wake()

    def fail(self, error: Exception) -> None:
        """There will be no answer, or this one."""
        self.error = error
        self._wake()

    def lose(self) -> None:
        """The connection has ended before the answer."""
        kind = self.command.type
        self.fail(ConnectionLost(f"the connection was lost before `{kind}` was answered; it may have been done"))


class ClientRequests:
    """All of one client. A command is queued, then sent, then settled; one that is sent again is queued once more."""

    def __init__(self) -> None:
        self._queue: deque[ClientRequest] = deque()
        self._sent: dict[str, deque[ClientRequest]] = {}  # by id, in the order of sending
        self._user: str | None = None  # who the client is on the server
        self._error: FanlineError | None = None  # what ended the client

    @property
    def waiting(self) -> bool:
        """Whether an answer is to come."""
        return bool(self._sent)

    def speak_as(self, user: str | None) -> None:
        """There is a new connection, of this user. A de-duplication id is its user's own: if that is another user now,
        what was sent before would be stored twice.
        """
        if user != self._user:
            for request in [each for each in self._queue if each.sent_at is not None and each.stores]:
                self._queue.remove(request)
                request.lose()
        self._user = user

    def queue(self, request: ClientRequest) -> None:
        """Keep a command until it can be sent."""
        if self._error is not None:
            request.fail(copy(self._error))
        else:
            self._queue.append(request)

    def queued(self, now: float) -> Iterator[ClientRequest]:
        """Take the commands to be sent now. One whose repetition the server might not recognise any more fails."""
        while self._queue:
            request = self._queue.popleft()
            if request.sent_at is not None and request.stores and now - request.sent_at > STORED_SECONDS:
                request.lose()
            else:
                yield request

    def sent(self, request: ClientRequest, now: float) -> None:
        """A command is on its way."""
        if request.sent_at is None:
            request.sent_at = now
        self._sent.setdefault(request.command.id or "", deque()).append(request)

    def settle(self, reply: Envelope) -> ClientRequest | None:
        """Hand an answer to the oldest command with its id; None if no command waits for it."""
        waiting = self._sent.get(reply.id or "")
        if not waiting:
            return None
        request = waiting[0]
        self.forget(request)
        request.settle(reply)
        return request

    def forget(self, request: ClientRequest) -> None:
        """The program waits for this command no longer."""
        if request in self._queue:
            self._queue.remove(request)
        key = request.command.id or ""
        if request in self._sent.get(key, ()):
            self._sent[key].remove(request)
            if not self._sent[key]:
                del self._sent[key]

    def lose(self, is_durable: Callable[[str], bool]) -> None:
        """The connection has ended: what may be sent again is queued, in its old order; the rest fails."""
        sent, self._sent = sorted(itertools.chain(*self._sent.values())), {}
        again = deque[ClientRequest]()
        for request in sent:
            repeat = REPEATS[MessageType(request.command.type)]
            if repeat is Repeat.ALWAYS or (repeat is Repeat.IF_STORED and is_durable(request.command.channel or "")):
                again.append(request)
            else:
                request.lose()
        self._queue = again + self._queue

    def close(self, error: FanlineError) -> None:
        """The client is over. What is on its way may have been done."""
        self._error = error
        sent, self._sent = sorted(itertools.chain(*self._sent.values())), {}
        queue, self._queue = self._queue, deque()
        for request in sent:
            request.lose()
        for request in queue:
            request.fail(copy(error))
