"""What the application answers in place of the server: message types and verbs that only it knows."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from fanline.engine.access.handlers import HandlerClient
from fanline.engine.counters import Counters
from fanline.engine.hooks.events import ClientSession
from fanline.protocol.envelope import check_value
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.handlers import HandlerError
from fanline.protocol.hooks.questions import ClientQuestion, QuestionAnswer, hooks_handler

MOST_OF_ONE_NAME = 64
"""Questions of one name that a worker has under way: those of a slow function do not keep others from theirs."""
FAILED = "Message processing error"
"""What clients are told if there is no answer; the log says why. The existing clients know this text."""


class Questions:
    """Those of one worker. `setups`: the functions that have registered who answers; empty: nobody does."""

    def __init__(self, handlers: HandlerClient, setups: Sequence[str], counters: Counters) -> None:
        self._handlers = handlers
        self._handler = hooks_handler(setups)
        self._under_way: Counter[str] = Counter()
        self._counters = counters
        self.enabled = bool(setups)

    async def ask(
        self, kind: type[ClientQuestion], client: ClientSession, name: str, channel: str | None, data: Any
    ) -> QuestionAnswer:
        """The answer, perhaps that nobody knows the name. MessageError: UNAVAILABLE if there is none that can be used
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
        if self._under_way[name] >= MOST_OF_ONE_NAME:
            raise HandlerError("too many questions of this name are under way")
        self._under_way[name] += 1
        try:
            return await self._handlers.ask(self._handler, question, QuestionAnswer)
        finally:
            self._under_way[name] -= 1
            if not self._under_way[name]:
                del self._under_way[name]
