"""The authorizers of namespaces: the application's own code says what a client may do there.

A permission is cached for a while, so that a client which comes back causes no question. The key is the whole question:
another token, role or name is asked about again.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import trio

from fanline.engine.access.application.handlers import HandlerClient
from fanline.engine.access.identity import Identity
from fanline.engine.access.revoked.removals import Removals, RemovalsByUser
from fanline.engine.namespaces import Namespace
from fanline.protocol.auth.rights import Right, right_names
from fanline.protocol.channels import namespace_of
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.handlers import AuthorizeAnswer, AuthorizeRequest, Handler, HandlerError, parse_handler

MOST_REMEMBERED = 20_000
"""Answers of a worker; beyond it the oldest are forgotten."""


class _Remembered(NamedTuple):
    decision: AuthorizeAnswer
    until: float


class Authorizers:
    """The authorizers of one worker. `clock`: seconds of a clock that never goes back."""

    def __init__(
        self,
        handlers: HandlerClient,
        namespaces: Mapping[str, Namespace],
        removals: Removals,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self._handlers = handlers
        self._removals = removals
        self._clock = clock
        self._by_namespace: dict[str, Handler] = {
            name: parse_handler(namespace.authorizer) for name, namespace in namespaces.items() if namespace.authorizer
        }
        self._remembered: dict[AuthorizeRequest, _Remembered] = {}

    def __len__(self) -> int:
        """How many answers are remembered."""
        return len(self._remembered)

    def __bool__(self) -> bool:
        """Whether there is any authorizer."""
        return bool(self._by_namespace)

    def decide(self, channel: str) -> bool:
        """Whether the channel's namespace has an authorizer: then it alone decides."""
        return namespace_of(channel) in self._by_namespace

    async def check(self, identity: Identity, right: Right, channel: str) -> None:
        """MessageError if the authorizer of the channel's namespace, if there is one, does not allow it:
        PERMISSION_DENIED if it says so, UNAVAILABLE if it does not answer as it should.
        """
        handler = self._by_namespace.get(namespace_of(channel))
        if handler is None:
            return
        question = _question(identity, right, channel)
        decision = self._recall(question)
        if decision is None:
            decision = await self._ask(handler, question)
        if not decision.allow:
            text = decision.reason or f"you have no right to {question.right} on {channel}"
            raise MessageError(ErrorCode.PERMISSION_DENIED, text)

    def forget(self, removals: RemovalsByUser | None = None) -> None:
        """Drop the cached answers about these users on these channels; without removals, all answers."""
        if removals is None:
            self._remembered.clear()
        elif removals:  # one pass, however many they are
            self._remembered = {
                question: answer for question, answer in self._remembered.items() if not _is_among(question, removals)
            }

    async def _ask(self, handler: Handler, question: AuthorizeRequest) -> AuthorizeAnswer:
        mark = self._removals.mark()
        try:
            decision = await self._handlers.ask(handler, question, AuthorizeAnswer)
        except HandlerError:
            text = f"rights on {question.channel} cannot be checked now; try again later"
            raise MessageError(ErrorCode.UNAVAILABLE, text) from None
        if self._removals.since(mark, question.user, question.channel) is None:  # else it may be older than the removal
            self._remember(question, decision)
        return decision

    def _recall(self, question: AuthorizeRequest) -> AuthorizeAnswer | None:
        known = self._remembered.get(question)
        return None if known is None or known.until <= self._clock() else known.decision

    def _remember(self, question: AuthorizeRequest, decision: AuthorizeAnswer) -> None:
        """A refusal without a `ttl` is not remembered: who becomes a member gets in at once."""
        seconds = decision.ttl
        if seconds is None:
            seconds = self._handlers.settings.cache if decision.allow else 0.0
        self._remembered.pop(question, None)  # at the end of the dictionary again
        if seconds > 0:
            self._remembered[question] = _Remembered(decision, self._clock() + seconds)
        if len(self._remembered) > MOST_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]


def _is_among(question: AuthorizeRequest, removals: RemovalsByUser) -> bool:
    return any(each.covers(question.channel) for each in removals.get(question.user or "", ()))


def _question(identity: Identity, right: Right, channel: str) -> AuthorizeRequest:
    return AuthorizeRequest(
        user=identity.user,
        username=identity.username,
        roles=identity.roles,
        token_id=identity.token_id,
        right=right_names(right)[0],
        channel=channel,
        granted=right in identity.grants.on(channel),
    )
