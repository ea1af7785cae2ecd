"""What the application answers in place of the server: message types and verbs that only it knows."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from fanline.engine.access.application.handlers import AT_ONCE, HandlerClient
from fanline.engine.counters import Counters
from fanline.engine.hooks.events import ClientSession
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.handlers import Handler, HandlerError
from fanline.protocol.hooks.questions import ClientQuestion, QuestionAnswer
from fanline.protocol.values import check_value

MOST_OF_ONE_NAME = 64
"""Questions of one name that a worker has under way."""
FAILED = "Message processing error"
"""The answer to clients if there is none; the log says why. The existing clients know this text."""


class Questions:
    """Those of one worker. `answerers`: are asked in this order until one knows the name; may be empty."""

    def __init__(self, handlers: HandlerClient, answerers: Sequence[Handler], counters: Counters) -> None:
        self._handlers = handlers
        self._answerers = answerers
        self._under_way: Counter[str] = Counter()
        self._free = AT_ONCE
        """A name never has more under way than there is room left for others. So however many slow functions there are,
        a question that is not one of theirs finds room.
        """
        self._counters = counters
        self.enabled = bool(answerers)

    async def ask(
        self, kind: type[ClientQuestion], client: ClientSession, name: str, channel: str | None, data: Any
    ) -> QuestionAnswer:
        """The answer, perhaps that the name is unknown. MessageError: UNAVAILABLE if there is no usable answer
        in time, REFUSED with the application's own words.
        """
        who = client.identity
        question = kind(
            name=name,
            data=data,
            channel=channel,
            connection_id=client.connection,
            user=who.user,
            username=who.username,
            roles=who.roles,
        )
        self._counters.questions += 1
        try:
            answer = await self._ask(question)
            check_value(answer.result)  # as everything that goes to clients
        except (HandlerError, MessageError):
            self._counters.questions_failed += 1
            raise MessageError(ErrorCode.UNAVAILABLE, FAILED) from None
        if answer.refusal is not None:
            raise MessageError(ErrorCode.REFUSED, answer.refusal)
        return answer

    async def _ask(self, question: ClientQuestion) -> QuestionAnswer:
        name = question.name
        if self._under_way[name] >= min(MOST_OF_ONE_NAME, self._free):
            raise HandlerError("too many questions of this name are under way")
        self._under_way[name] += 1
        self._free -= 1
        try:
            for handler in self._answerers:
                answer = await self._handlers.ask(handler, question, QuestionAnswer)
                if answer.known:
                    return answer
            return QuestionAnswer(known=False)
        finally:
            self._free += 1
            self._under_way[name] -= 1
            if not self._under_way[name]:
                del self._under_way[name]
