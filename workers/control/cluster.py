"""Asking the workers: all of the cluster at once, or any one of them."""

import random
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
from msgspec.structs import replace

from fanline.engine.bus.interface import Bus
from fanline.engine.cluster.members import Members
from fanline.protocol.management.questions import (
    SUBJECT,
    Answered,
    ManagementQuestion,
    SendQuestion,
    decode_answered,
    encode_question,
)
from fanline.workers.control.problems import refused, unavailable

ANSWER_SECONDS = 2.0
"""In which a worker has to answer. One that has died is waited for, until the others know that it is dead."""
LONG_SECONDS = 3.0
"""The same for what a worker itself has to ask others about."""

Body = TypeVar("Body")


class Gathered(NamedTuple, Generic[Body]):
    """What the workers of the cluster have said."""

    bodies: list[Body]
    answered: int
    missing: list[str]
    """Those that have not answered."""


class Cluster:
    """The workers, as the control process reaches them. `members`: only watched."""

    def __init__(self, bus: Bus, members: Members) -> None:
        self._bus = bus
        self._members = members

    async def gather(self, question: ManagementQuestion, kind: type[Body]) -> Gathered[Body]:
        """What all workers say. ApiError if all refuse, or none answers; BusError."""
        expected = await self._expected()
        found = await self._ask(question, ANSWER_SECONDS, len(expected))
        if not found:
            raise unavailable("no worker answers")
        bodies = [msgspec.json.decode(each.body, type=kind) for each in found if not each.code]
        failed = [each for each in found if each.code]
        if failed and not bodies:
            raise refused(failed[0].code, failed[0].message)
        silent = [*(expected - {each.worker for each in found}), *(each.worker for each in failed)]
        return Gathered(bodies, len(bodies), sorted(map(self._name, silent)))

    async def find(self, question: ManagementQuestion, kind: type[Body]) -> Body | None:
        """What the one worker says that has what the question is about; None if none has it. BusError; ApiError, also
        if one that may have it does not answer.
        """
        or_none: Any = kind | None
        gathered: Gathered[Body | None] = await self.gather(question, or_none)
        found = next((body for body in gathered.bodies if body is not None), None)
        if found is None and gathered.missing:
            raise unavailable(f"no answer from {', '.join(gathered.missing)}")
        return found

    async def send(self, question: SendQuestion) -> bool:
        """Whether a worker had the connection and has sent it something. ApiError, BusError."""
        return any((await self.gather(question, bool)).bodies)

    async def ask_own(self, question: ManagementQuestion, kind: type[Body], count: int) -> list[Body]:
        """What those workers say to whom the question is addressed, `count` at most. BusError."""
        found = await self._ask(question, ANSWER_SECONDS, count)
        return [msgspec.json.decode(each.body, type=kind) for each in found if not each.code]

    async def ask_one(self, question: ManagementQuestion, kind: type[Body]) -> Body:
        """What any worker says that is asked about the whole cluster. BusError, ApiError."""
        expected = list(await self._expected())
        random.shuffle(expected)
        for worker in expected[:2]:
            for answered in await self._ask(replace(question, to=worker), LONG_SECONDS, 1):
                return self._read(answered, kind)
        raise unavailable("no worker answers")

    async def act_once(self, question: ManagementQuestion, seconds: float) -> Any:
        """What any worker says, which is asked once: it may have done it even if it does not answer. BusError,
        ApiError.
        """
        expected = list(await self._expected())
        if not expected:
            raise unavailable("no worker answers")
        asked = replace(question, to=random.choice(expected))  # noqa: S311  # no secret
        for answered in await self._ask(asked, seconds, 1):
            return self._read(answered, object)
        raise unavailable("the worker that was asked has not answered; it may have been done")

    async def _ask(self, question: ManagementQuestion, seconds: float, count: int) -> list[Answered]:
        payload = encode_question(question)
        answers = await self._bus.ask_all(SUBJECT, payload, seconds, max(1, count))
        return [each for each in map(decode_answered, answers) if each is not None]

    async def _expected(self) -> set[str]:
        """The ids of the live workers. BusError if that cannot be found out."""
        return set(await self._members.look()) - {self._members.id}

    def _read(self, answered: Answered, kind: type[Body]) -> Body:
        if answered.code:
            raise refused(answered.code, answered.message)
        body: Any = msgspec.json.decode(answered.body, type=kind)
        return body  # type: ignore[no-any-return]

    def _name(self, worker: str) -> str:
        member = self._members.others.get(worker)
        return worker if member is None else f"{member.name} on {member.host} (pid {member.pid})"
