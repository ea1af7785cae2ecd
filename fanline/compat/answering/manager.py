"""`websocket_manager`, as the old programs have it: their functions that the server calls."""

import os
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any

from fanline.base.plain import plain
from fanline.compat import counts, sending
from fanline.compat.answering.answers import ANSWER, AUTHENTICATE, AUTHORIZE, QUEUE, Answers, MessageHandler
from fanline.compat.answering.calling import ProgramCalls
from fanline.compat.answering.hearing import EventHandler, Hearing, queue_of, subjects_of
from fanline.compat.answering.thread import AnsweringThread, Take
from fanline.nats.settings import find_engine_options
from fanline.protocol.hooks.events import check_own_event, encode_event, event_subject
from fanline.protocol.hooks.hooks import HookError, check_own_type
from fanline.protocol.nats.options import NatsOptions

_OVERRIDABLE = {"authenticate_user": AUTHENTICATE, "can_user_access_room": AUTHORIZE}


class WebSocketManager:
    """Sub-class it, or assign to the methods of `websocket_manager`, to say who may come in and who may see a room.
    What is registered is registered for the whole program, whichever manager does it.
    """

    def __init__(self) -> None:
        self._thread: AnsweringThread | None = None
        self._process = 0

    # --- to be overridden; coroutine functions or others ---------------------------------------------------------

    def authenticate_user(self, user_id: str, username: str | None) -> bool | Awaitable[bool]:
        """Whether a client is the user that it says it is. Asked of each that says who it is; without an answer it is
        refused.
        """
        return True

    def can_user_access_room(self, user_id: str, room_id: str) -> bool | Awaitable[bool]:
        """Whether a user may hear what is said in a room, and speak there. Rooms are projects, under their own names,
        and chat sessions, as in `session:5`; `*` stands for all projects.
        """
        return True

    # --- functions that hear and answer --------------------------------------------------------------------------

    def register_message_handler(self, message_type: str, handler: MessageHandler) -> None:
        """Have `handler(connection_id, message)` answer the clients' messages of a type that the server does not know.
        What it returns is the answer (docs/reference/hooks.md). Raises HookError.
        """
        _calls.use_running_loop()
        _messages[check_own_type(message_type)] = handler

    def add_event_handler(self, event: str, handler: EventHandler) -> None:
        """Have `handler(data)` called with each event of this name: those of the server (docs/reference/hooks.md), own
        ones, and `task_events:all` and the like, as the agent console names them. Raises ValueError for what is none.
        """
        subjects_of(event)
        _calls.use_running_loop()
        heard = _events.setdefault(event, [])
        heard.append(handler)
        if self._thread is not None:
            for (subject, queue), take in _hearing(event, len(heard) - 1, handler).items():
                self._thread.listen(subject, queue, take)

    def emit_event(self, event: str, data: Mapping[str, Any] | None = None) -> None:
        """Publish an event of the program's own, soon, to its listeners in any process. Raises HookError before
        `start`, ValueError for what cannot be said.
        """
        if self._thread is None:
            raise HookError(f"{event} cannot be said before websocket_manager.start()")
        check_own_event(event)
        payload = encode_event(
            event, secrets.token_urlsafe(12), time.time_ns() // 1_000_000, "compat", plain(data or {})
        )
        self._thread.publish(event_subject(event), payload)

    # --- its life ------------------------------------------------------------------------------------------------

    def start(self, find_nats: Callable[[], NatsOptions] = find_engine_options) -> "Future[None]":
        """Have the server call the functions of this program from now on, until it ends or `stop`. The result is done
        when it can: call `.result(10)` in plain code. Raises HookError if another manager of the program was started.
        """
        global _started
        _calls.use_running_loop()
        if _started not in (None, self):
            raise HookError("another WebSocketManager of this program was started already")
        if self._thread is None or self._process != os.getpid():  # a fork has none of its parent's threads
            _started, self._process = self, os.getpid()
            self._thread = AnsweringThread.begin(find_nats, self._subjects())
        return self._thread.attachment.attached

    def stop(self) -> None:
        """The server asks others, if there are any."""
        global _started
        if self._thread is not None:
            self._thread.stop()
            self._thread = _started = None

    def subjects_required(self) -> frozenset[str]:
        """Where the server has to ask, since who may do what depends on it."""
        return frozenset(subject for name, subject in _OVERRIDABLE.items() if self._is_overridden(name))

    def _subjects(self) -> dict[tuple[str, str], Take]:
        # One that is not overridden would let everybody in, whatever other processes of the program say.
        answers = Answers(_calls)
        found: dict[tuple[str, str], Take] = {(ANSWER, QUEUE): partial(answers.answer, _messages)}
        if self._is_overridden("authenticate_user"):
            found[AUTHENTICATE, QUEUE] = partial(answers.authenticate, self.authenticate_user)
        if self._is_overridden("can_user_access_room"):
            found[AUTHORIZE, QUEUE] = partial(answers.authorize, self.can_user_access_room)
        for event, handlers in _events.items():
            for number, handler in enumerate(handlers):
                found |= _hearing(event, number, handler)
        return found

    def _is_overridden(self, name: str) -> bool:
        return getattr(getattr(self, name), "__func__", None) is not getattr(WebSocketManager, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OVERRIDABLE and self._thread is not None:
            raise HookError(f"{name} has to be overridden before the manager is started")
        super().__setattr__(name, value)

    # --- the calls of the program --------------------------------------------------------------------------------

    send_to_user = staticmethod(sending.send_to_user)
    send_to_channel = staticmethod(sending.send_to_channel)
    send_to_project = staticmethod(sending.send_to_project)
    send_to_session = staticmethod(sending.send_to_session)
    broadcast = staticmethod(sending.broadcast)
    get_stats = staticmethod(counts.get_websocket_stats)
    get_connection_count = staticmethod(counts.get_connection_count)
    get_user_connection_count = staticmethod(counts.get_user_connection_count)
    get_channel_subscriber_count = staticmethod(counts.get_channel_subscriber_count)


def _hearing(event: str, number: int, handler: EventHandler) -> dict[tuple[str, str], Take]:
    hearing, queue = Hearing(_calls, handler), queue_of(event, handler, number)
    return {(subject, queue): hearing.take for subject in subjects_of(event)}


_calls = ProgramCalls()
_messages: dict[str, MessageHandler] = {}
_events: dict[str, list[EventHandler]] = {}
_started: WebSocketManager | None = None
websocket_manager = WebSocketManager()
