"""Shows, posts again and drops dead letters, at an operator's request through the control process."""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
import nats.errors
import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg

from fanline.protocol.hooks.dead_letters import (
    REASON,
    WEBHOOK,
    AnyDeadQuestion,
    DeadAnswer,
    DeadLetterDetails,
    DeadLetterInfo,
    DeadLettersPage,
    DropDead,
    KeptEvent,
    ListDead,
    ShowDead,
    decode_dead_question,
)
from fanline.protocol.hooks.events import BadEventError, decode_event
from fanline.protocol.nats.names import DEAD_EVENTS, dead_subject
from fanline.protocol.times import iso_time
from fanline.workers.handlers.posting.poster import NotTakenError, Poster

POST_SECONDS = 5.0
"""Seconds for a webhook to accept an event that is posted again: an operator waits for the answer."""
MAX_DATA_BYTES = 256 * 1024
_PAGE_BYTES = 16 << 20  # of letters that are read for one page


class DeadLetterError(Exception):
    """It cannot be done; str() is one sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class DeadLetters:
    """`posters`: name of a webhook's consumer -> its poster."""

    def __init__(self, js: JetStreamContext, posters: Mapping[str, Poster]) -> None:
        self._js = js
        self._posters = posters

    async def answer(self, _subject: str, payload: bytes) -> bytes:
        """The answer to a question."""
        try:
            body = await self._answer(decode_dead_question(payload))
            answer = DeadAnswer(msgspec.Raw(msgspec.json.encode(body)))
        except msgspec.MsgspecError:
            answer = DeadAnswer(status=503, message="this version of the process does not know the question")
        except DeadLetterError as error:
            answer = DeadAnswer(status=error.status, message=str(error))
        except (nats.errors.Error, OSError) as error:
            answer = DeadAnswer(status=503, message=f"NATS: {error or type(error).__name__}")
        return msgspec.json.encode(answer)

    async def _answer(self, question: AnyDeadQuestion) -> Any:
        if isinstance(question, ListDead):
            return await self._page(question.after, question.limit)
        letter = await self._read(question.number)
        if isinstance(question, ShowDead):
            return _details(letter)
        if not isinstance(question, DropDead):
            await self._post(letter)
        await self._js.delete_msg(DEAD_EVENTS, question.number)
        return _info(letter)

    async def _page(self, after: int, limit: int) -> DeadLettersPage:
        items, size = list[DeadLetterInfo](), 0
        while len(items) < limit and size < _PAGE_BYTES:
            try:
                letter = await self._js.get_msg(DEAD_EVENTS, after + 1, dead_subject("*"), direct=True, next=True)
            except nats.js.errors.NotFoundError:
                return DeadLettersPage(items, more=False)
            after, size = letter.seq or 0, size + len(letter.data or b"")
            items.append(_info(letter))
        return DeadLettersPage(items, more=True)

    async def _read(self, number: int) -> RawStreamMsg:
        try:
            return await self._js.get_msg(DEAD_EVENTS, number, direct=True)
        except nats.js.errors.NotFoundError:
            raise DeadLetterError(404, f"there is no dead letter {number}") from None

    async def _post(self, letter: RawStreamMsg) -> None:
        """Returns when the webhook has accepted it. DeadLetterError."""
        poster = self._posters.get((letter.subject or "").removeprefix(dead_subject("")))
        if poster is None:
            raise DeadLetterError(409, "its webhook is not in the settings of the server that was asked")
        if not _info(letter).has_data:
            raise DeadLetterError(409, "it was stored without its data")
        payload = letter.data or b""
        try:
            async with asyncio.timeout(POST_SECONDS):
                await poster.post([(decode_event(payload), payload)])
        except TimeoutError:
            raise DeadLetterError(409, f"the webhook did not answer within {POST_SECONDS:g} s") from None
        except (NotTakenError, BadEventError) as error:
            raise DeadLetterError(409, f"the webhook has not accepted it: {error}") from None


_kept = msgspec.json.Decoder(KeptEvent)


def _info(letter: RawStreamMsg) -> DeadLetterInfo:
    return DeadLetterInfo(**_fields(letter, _event_of(letter)))


def _details(letter: RawStreamMsg) -> DeadLetterDetails:
    event, size = _event_of(letter), len(letter.data or b"")
    shown = event.data if not event.data_omitted and size <= MAX_DATA_BYTES else None
    return DeadLetterDetails(**_fields(letter, event), data=shown)


def _event_of(letter: RawStreamMsg) -> KeptEvent:
    try:
        return _kept.decode(letter.data or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError):  # another program has stored it
        return KeptEvent(id="", type="", timestamp="", source="")


def _fields(letter: RawStreamMsg, event: KeptEvent) -> dict[str, Any]:
    headers: Mapping[str, str] = letter.headers or {}
    stored = None if letter.time is None else iso_time(int(letter.time.timestamp() * 1000))
    return {
        "number": letter.seq or 0,
        "webhook": headers.get(WEBHOOK, ""),
        "reason": headers.get(REASON, ""),
        "stored": stored or "",
        "event_id": event.id,
        "event": event.type,
        "timestamp": event.timestamp,
        "bytes": event.data_omitted or len(letter.data or b""),
        "has_data": not event.data_omitted,
    }
