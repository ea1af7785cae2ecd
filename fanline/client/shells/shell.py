"""What carries out the decisions of a client's machine, and tells it what has happened. It decides nothing.

Here is what is the same under every event loop; `trio_shell.py` and `asyncio_shell.py` add theirs.
"""

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from copy import copy
from typing import Any, Protocol

from fanline.client.machine.client_machine import ClientMachine
from fanline.client.machine.commands import Command, Result
from fanline.client.machine.effects import AskToken, Connect, Disconnect, RenewToken, ShellEffect, Tell, Transmit
from fanline.client.machine.local_subscription import LocalSubscription
from fanline.client.machine.presence import PresenceRoster
from fanline.client.machine.requests import ClientRequest
from fanline.client.machine.wire import V1Dialect
from fanline.client.token_source import TokenSource
from fanline.errors import FanlineError

_log = logging.getLogger("fanline")


class Bell(Protocol):
    """Wakes whoever waits for something to change; what, they look up themselves."""

    def ring(self) -> None: ...

    async def wait(self) -> None: ...


class ClientShell(ABC):
    """One client's. `notice` is told sentences for people. It belongs to the event loop and the process in which it is
    made.
    """

    def __init__(self, url: str, dialect: V1Dialect, tokens: TokenSource, notice: Callable[[str], None]) -> None:
        self.machine = ClientMachine(dialect, can_renew=tokens.can_change)
        self._url = url
        self._dialect = dialect
        self._tokens = tokens
        self._notice = notice
        self._changed = self.bell()  # anything
        self._process = os.getpid()

    # --- what an event loop adds --------------------------------------------------------------------------------

    @abstractmethod
    def live(self) -> AbstractAsyncContextManager[None]:
        """The client around the caller's block; what the block raises leaves it unchanged."""

    @abstractmethod
    def bell(self) -> Bell: ...

    @abstractmethod
    def now(self) -> float: ...

    @abstractmethod
    async def checkpoint(self) -> None:
        """Before each item of an iterator: let others run, as far as that is the custom of this loop. Raises
        RuntimeError where the client does not belong.
        """

    @abstractmethod
    def _is_own_loop(self) -> bool:
        """Whether the caller runs in the loop that the client was entered in."""

    @abstractmethod
    def _transmit(self, payload: bytes) -> None: ...

    @abstractmethod
    def _connect_next(self, token: str | None) -> None: ...

    @abstractmethod
    def _disconnect(self) -> None: ...

    @abstractmethod
    def _start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin this in the background, unless the client has ended."""

    @abstractmethod
    def _keep_deadline(self) -> None:
        """The machine's deadline may be another one."""

    # --- for the program ----------------------------------------------------------------------------------------

    async def request(self, command: Command[Result]) -> tuple[Result, ClientRequest]:
        """Send a command, and wait for its answer. Raises ServerError if it is refused, and what ended the client."""
        self._check_place()
        answered = self.bell()
        request = ClientRequest(command.envelope, answered.ring, to_others=command.to_others)
        self.perform(self.machine.request(request, self.now()))
        try:
            while not request.settled:
                await answered.wait()
        finally:
            self.machine.forget(request)
        if request.error is not None:
            raise request.error
        assert request.reply is not None
        return command.read(request.reply), request

    async def enter(self, local: LocalSubscription, bell: Bell) -> None:
        """Begin a subscription. Raises ServerError if one of its channels is refused, or what ended the client."""
        self._check_place()
        self.perform(self.machine.enter(local, self.now()))
        try:
            while not local.begun:
                await bell.wait()
        except BaseException:
            self.leave(local)
            raise

    def leave(self, local: LocalSubscription) -> None:
        """End a subscription."""
        self.perform(self.machine.leave(local, self.now()))

    def taken(self) -> None:
        """A message was taken from a subscription: there may be room for more."""
        self._changed.ring()

    async def view(self, roster: PresenceRoster, bell: Bell) -> None:
        """Begin to watch who is on a channel, which is subscribed already. Raises as `enter` does."""
        self.perform(self.machine.view(roster, self.now()))
        while not roster.begun:
            await bell.wait()

    def leave_view(self, roster: PresenceRoster) -> None:
        """Watch no longer."""
        self.machine.leave_view(roster)

    def _check_place(self) -> None:
        if self._process != os.getpid():
            raise RuntimeError("this client was entered before the process was forked: enter another one here")
        if not self._is_own_loop():
            raise RuntimeError("this client was entered in another event loop: enter another one here")

    # --- what the machine wants ---------------------------------------------------------------------------------

    def perform(self, effects: list[ShellEffect]) -> None:
        for effect in effects:
            match effect:
                case Transmit(payload):
                    self._transmit(payload)
                case Connect(token):
                    self._connect_next(token)
                case AskToken():
                    self._start(self._ask_token)
                case RenewToken():
                    self._start(self._renew_token)
                case Disconnect():
                    self._disconnect()
                case Tell(sentence):
                    self._tell(sentence)
        self._keep_deadline()
        self._changed.ring()

    def _tell(self, sentence: str) -> None:
        """What the program's function raises is the program's to mend, and no reason to end a connection."""
        try:
            self._notice(sentence)
        except Exception:  # noqa: BLE001  # whatever the program's function raises
            _log.exception("the function for notices has raised when it was told: %s", sentence)

    def _listen(self) -> None:
        """The next message is waited for."""
        self.machine.reading(self.now())
        self._keep_deadline()

    async def _wait_ready(self) -> None:
        while not self.machine.ready:
            if self.machine.error is not None:
                raise _to_raise(self.machine.error)
            await self._changed.wait()

    async def _ask_token(self) -> None:
        try:
            token = await self._tokens.next()
        except Exception as error:  # noqa: BLE001  # whatever the program's function raises
            self.perform(self.machine.not_authorized(error, self.now()))
        else:
            self.perform(self.machine.authorized(token))

    async def _renew_token(self) -> None:
        try:
            token = await self._tokens.next()
        except Exception as error:  # noqa: BLE001  # whatever the program's function raises
            self.perform(self.machine.not_renewed(error))
        else:
            self.perform(self.machine.renewed(token))


def _to_raise(error: Exception) -> Exception:
    return copy(error) if isinstance(error, FanlineError) else error  # a copy, since every raise adds to a traceback
