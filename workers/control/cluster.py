"""Asking the workers: all of the cluster at once, or any one of them."""

import random
from collections.abc import Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
from msgspec.structs import replace

from fanline.engine.bus.errors import NoListenerError
from fanline.engine.bus.interface import Bus
from fanline.engine.cluster.members import Members
from fanline.engine.management.statistics import WorkerStatistics
from fanline.protocol.hooks.counters import COUNTERS_SUBJECT, CountersQuestion, HandlersCounters, decode_counters
from fanline.protocol.hooks.dead_letters import DEAD_SUBJECT, DeadQuestion, decode_dead_answer
from fanline.protocol.management.questions import (
    SUBJECT,
    Answered,
    ManagementQuestion,
    SendQuestion,
    decode_answered,
    encode_question,
)
from fanline.workers.control.http.problems import ApiError, refused, unavailable

ANSWER_SECONDS = 2.0
"""In which a worker has to answer. A dead one is waited for until the others know of its death."""
COUNTERS_SECONDS = 1.0
"""The same for processes of handlers, whose numbers are left out if they do not answer."""
DEAD_SECONDS = 8.0
"""The same for what has to do with dead letters: a webhook may be posted to."""
LONG_SECONDS = 3.0
"""The same for what a worker itself has to ask others about."""

_DEAD_CODES = {404: "not_found", 409: "not_posted"}

Body = TypeVar("Body")


class Gathered(NamedTuple, Generic[Body]):
    """The answers of the cluster's workers."""

    bodies: list[Body]
    answered: int
    missing: list[str]
    """Those that have not answered."""


def missing_workers(slots: Mapping[str, int], told: Gathered[WorkerStatistics]) -> list[str]:
    """Those that should be there and have not answered, by name; `told.missing` has the live ones alone. So a slot that
    nobody serves is named, also one whose worker has been silent for so long that it was given up; and a worker that
    was replaced is not. `slots`: server -> the number of its workers.
    """
    answered = {_slot(each.name, each.server) for each in told.bodies}
    found = {_slot(f"worker-{number}", server) for server, count in slots.items() for number in range(count)}
    named = {slot: slot for slot in found} | {each.partition(" (pid ")[0]: each for each in told.missing}
    return sorted(name for slot, name in named.items() if slot not in answered)


class Cluster:
    """The workers, as seen by the control process. `members`: only watched; `seconds`: for a worker's answer."""

    def __init__(self, bus: Bus, members: Members, seconds: float = ANSWER_SECONDS) -> None:
        self._bus = bus
        self._members = members
        self._seconds = seconds

    async def gather(self, question: ManagementQuestion, kind: type[Body]) -> Gathered[Body]:
        """What all workers say. ApiError if all refuse, or none answers; BusError."""
        expected = await self._expected()
        names = {worker: self._name(worker) for worker in expected}  # one that is given up meanwhile has none any more
        found = await self._ask(question, self._seconds, len(expected))
        if not found:
            raise unavailable("no worker answers")
        bodies = [msgspec.json.decode(each.body, type=kind) for each in found if not each.code]
        failed = [each for each in found if each.code]
        if failed and not bodies:
            raise refused(failed[0].code, failed[0].message)
        silent = [*(expected - {each.worker for each in found}), *(each.worker for each in failed)]
        return Gathered(bodies, len(bodies), sorted(names.get(worker, worker) for worker in silent))

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
        found = await self._ask(question, self._seconds, count)
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
        raise unavailable("the worker that was asked has not answered; the request may have been carried out")

    async def handlers_counters(self, question: CountersQuestion, count: int) -> list[HandlersCounters]:
        """What the processes of handlers have counted, `count` at most; [] at once if there is none. BusError."""
        answers = await self._bus.ask_all(COUNTERS_SUBJECT, msgspec.json.encode(question), COUNTERS_SECONDS, count)
        return [each for each in map(decode_counters, answers) if each is not None]

    async def dead_letters(self, question: DeadQuestion, kind: type[Body]) -> Body:
        """What a process of handlers says of dead letters. BusError, ApiError."""
        try:
            answer = decode_dead_answer(await self._bus.ask(DEAD_SUBJECT, msgspec.json.encode(question), DEAD_SECONDS))
        except NoListenerError:
            raise unavailable("no process `handlers` that serves webhooks answers") from None
        if answer.status == 503:
            raise unavailable(answer.message)
        if answer.status != 200:
            raise ApiError(answer.status, _DEAD_CODES.get(answer.status, "refused"), answer.message)
        body: Any = msgspec.json.decode(answer.body, type=kind)
        return body  # type: ignore[no-any-return]

    @property
    def own_server(self) -> str:
        """What this server is called."""
        return self._members.own.server

    def other_workers(self) -> set[str]:
        """What the live workers of other servers are called in `missing`. One that has just come is not known."""
        server = self.own_server
        return {self._name(worker) for worker, member in self._members.others.items() if member.server != server}

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
        return worker if member is None else f"{_slot(member.name, member.server)} (pid {member.pid})"


def _slot(name: str, server: str) -> str:
    return f"{name} of {server}"
