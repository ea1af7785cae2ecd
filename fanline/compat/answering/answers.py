"""What the functions of a program return, as answers to the server. Nobody is let in by a guess: whatever is neither
True nor False is a failure, and so is an error.
"""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import msgspec

from fanline.base.plain import plain
from fanline.compat.answering.calling import ProgramCalls
from fanline.producer.waiting import finish
from fanline.protocol.dialects.plain.names import name_of
from fanline.protocol.handlers import (
    AuthenticateAnswer,
    AuthenticateRequest,
    AuthorizeAnswer,
    AuthorizeRequest,
    ClientIdentity,
    HandlerError,
    HandlerFailure,
    decode_request,
    encode_answer,
)
from fanline.protocol.hooks.hooks import HookRefusal
from fanline.protocol.hooks.questions import ClientMessage, QuestionAnswer, decode_question, encode_question_answer
from fanline.protocol.nats.parser import NatsMessage

AUTHENTICATE = "compat.authenticate"
"""Where the server asks for `authenticate_user`, if its settings say so."""
AUTHORIZE = "compat.authorize"
ANSWER = "compat.answer"
QUEUE = "fanline-compat"
"""Of the processes of a program, one answers."""
AT_ONCE = 64
"""Calls under way; whatever is asked beyond is refused."""
_ROOM_RIGHTS = ("sub", "pub", "presence", "history", "call", "cancel", "answer")
_USERS = {f"{kind}:*": _ROOM_RIGHTS for kind in ("project", "session", "task", "doc", "typing", "cursor", "presence")}
"""What a user of the old systems may do; `can_user_access_room` has the last word on rooms."""
_log = logging.getLogger("fanline")

MessageHandler = Callable[["AskingClient", dict[str, Any]], Any]


class AskingClient(str):
    """The public id of the connection that has sent a message, which is what the old handlers got, and who it is."""

    __slots__ = ("roles", "user_id", "username")
    user_id: str | None
    """None for a client that has not said who it is."""
    username: str | None
    roles: tuple[str, ...]

    @classmethod
    def of(cls, message: ClientMessage) -> "AskingClient":
        client = cls(message.connection_id)
        client.user_id, client.username, client.roles = message.user, message.username, message.roles
        return client


class Answers:
    """Each of its methods takes a request of the server, in the thread of the connection, and answers later."""

    def __init__(self, calls: ProgramCalls) -> None:
        self._calls = calls
        self._under_way = 0

    def authenticate(self, function: Callable[..., Any], message: NatsMessage) -> "Future[bytes]":
        """`function`: of a user's id and name."""
        request = _decoded(message, AuthenticateRequest)
        if isinstance(request, HandlerError):
            return _failure(request)
        claims = request.claims or {}
        user, username = request.user or claims.get("sub"), request.username or claims.get("username")
        if user is None:  # it may still say who it is; until then it may do nothing
            return _done(encode_answer(AuthenticateAnswer(allow=True, identity=ClientIdentity())))

        def answer(allow: object) -> bytes:
            identity = ClientIdentity(
                user=user,
                username=username,
                roles=tuple(claims.get("roles", ())),
                channels=claims.get("channels") or _USERS,
            )
            return encode_answer(AuthenticateAnswer(allow=_clear(allow), identity=identity))

        return self._call(answer, function, user, username)

    def authorize(self, function: Callable[..., Any], message: NatsMessage) -> "Future[bytes]":
        """`function`: of a user's id and the name of a room."""
        request = _decoded(message, AuthorizeRequest)
        if isinstance(request, HandlerError):
            return _failure(request)
        if request.user is None:
            return _done(encode_answer(AuthorizeAnswer(allow=False)))

        def answer(allow: object) -> bytes:
            return encode_answer(AuthorizeAnswer(allow=_clear(allow)))

        return self._call(answer, function, request.user, room_of(request.channel))

    def answer(self, handlers: Mapping[str, MessageHandler], message: NatsMessage) -> "Future[bytes]":
        """`handlers`: type of a message -> what answers it."""
        try:
            question = decode_question(message.payload)
        except HandlerError as error:
            return _failure(error)
        handler = handlers.get(question.name)
        if handler is None or not isinstance(question, ClientMessage):
            return _done(encode_question_answer(QuestionAnswer(known=False)))
        fields = question.data if isinstance(question.data, dict) else {"data": question.data}

        def answer(result: object) -> bytes:
            return encode_question_answer(QuestionAnswer(result=plain(result)))

        return self._call(answer, handler, AskingClient.of(question), {**fields, "type": question.name})

    def _call(self, answer: Callable[[Any], bytes], function: Callable[..., Any], *arguments: Any) -> "Future[bytes]":
        """`answer`: to what the function returns; may raise."""
        if self._under_way >= AT_ONCE:
            return _failure(HandlerError(f"{AT_ONCE} calls are under way in the program"))
        self._under_way += 1
        answered: Future[bytes] = Future()

        def ended(call: "Future[Any]") -> None:
            self._under_way -= 1
            finish(answered, _encoded(call, answer, function))

        self._calls.call(function, *arguments).add_done_callback(ended)
        return answered


def room_of(channel: str) -> str:
    """A room as the old clients name it: `project_123` for `project:project_123`, `session:5` for itself."""
    name = name_of(channel) or ""
    namespace, _, local = name.partition(":")
    return local if namespace == "project" else name


def _encoded(call: "Future[Any]", answer: Callable[[Any], bytes], function: object) -> bytes:
    try:
        return answer(call.result())
    except HookRefusal as refusal:
        return encode_question_answer(QuestionAnswer(refusal=str(refusal) or "refused"))
    except HandlerError as error:
        _log.error("%r: %s", function, error)
        return encode_answer(HandlerFailure(str(error)))
    except Exception as error:  # noqa: BLE001  # the program's own
        _log.error("%r failed", function, exc_info=error)
        return encode_answer(HandlerFailure(f"it raised {type(error).__name__}"))


def _clear(allow: object) -> bool:
    if not isinstance(allow, bool):
        raise HandlerError(f"it returned a {type(allow).__name__}; expected True or False")
    return allow


def _decoded(message: NatsMessage, kind: type[msgspec.Struct]) -> Any:
    try:
        request = decode_request(message.payload)
    except HandlerError as error:
        return error
    return request if isinstance(request, kind) else HandlerError("this function does not answer that")


def _failure(error: HandlerError) -> "Future[bytes]":
    return _done(encode_answer(HandlerFailure(str(error))))


def _done(answer: bytes) -> "Future[bytes]":
    future: Future[bytes] = Future()
    future.set_result(answer)
    return future
