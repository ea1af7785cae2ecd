"""A handler of the application's own, played by a test: it answers what workers ask on a bus in memory."""

from collections.abc import Callable

import trio

from fanline.engine.access.application.handlers import HandlerClient
from fanline.engine.access.settings import HandlerSettings
from fanline.engine.bus.interface import Respond
from fanline.engine.bus.memory import MemoryBroker, MemoryBus
from fanline.protocol.handlers import (
    AuthenticateRequest,
    AuthorizeRequest,
    HandlerAnswer,
    decode_request,
    encode_answer,
    parse_handler,
)

Request = AuthenticateRequest | AuthorizeRequest
Behaviour = Callable[[Request], HandlerAnswer | bytes | None]
"""The answer to a request; None: there is none."""


class Answering:
    """Answers on a broker as the handler of that name does."""

    def __init__(self, broker: MemoryBroker, name: str, behave: Behaviour) -> None:
        self.broker = broker
        self.behave = behave
        self.asked: list[Request] = []
        self.waiting: list[Respond] = []
        """Of the requests that were not answered."""
        self._subject = parse_handler(name).subject
        self._bus = MemoryBus(broker)

    async def start(self) -> None:
        await self._bus.answer(self._subject, self._take)

    async def stop(self) -> None:
        await self._bus.answer(self._subject, None)

    def _take(self, payload: bytes, respond: Respond) -> None:
        request = decode_request(payload)
        self.asked.append(request)
        answer = self.behave(request)
        if answer is None:
            self.waiting.append(respond)
        else:
            respond(answer if isinstance(answer, bytes) else encode_answer(answer))


async def answering(name: str, behave: Behaviour, broker: MemoryBroker | None = None) -> Answering:
    """One that answers already."""
    found = Answering(broker or MemoryBroker(), name, behave)
    await found.start()
    return found


def client_of(answers: Answering, **settings: float) -> HandlerClient:
    """That of a worker on the same broker."""
    return HandlerClient(MemoryBus(answers.broker), HandlerSettings(**settings))  # type: ignore[arg-type]


async def until(condition: Callable[[], bool]) -> None:
    """Let other tasks run until something is so."""
    while not condition():
        await trio.lowlevel.checkpoint()
