"""Answers the control process: one question at a time for each, beside the connections and in slices.

NATS decides who may ask: producers cannot reach the engine's own subjects (docs: ADR 22). The control process has
decided whether the caller behind a question may ask it.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from heapq import nsmallest
from typing import Any

import msgspec
import trio
from msgspec import Raw

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.interface import Bus, Respond
from fanline.engine.channels.durable.paging import Paging
from fanline.engine.channels.hub import Hub
from fanline.engine.channels.joining.join import Joining
from fanline.engine.cluster.members import Members
from fanline.engine.connections.registry import Registry
from fanline.engine.counters import Counters
from fanline.engine.faults import Faults
from fanline.engine.management.acting import Acting
from fanline.engine.management.connections import ConnectionLister, time_text
from fanline.engine.management.names import page_of_names
from fanline.engine.management.statistics import CHUNK, LOOK_SECONDS, StatisticsTaker, WorkerStatistics
from fanline.engine.namespaces import Namespaces
from fanline.engine.presence.presence import Presence
from fanline.engine.sessions.calls.calls import Calls
from fanline.engine.sessions.commands.commands import Commands
from fanline.engine.sessions.refusals import code_of
from fanline.engine.slices import Slices, pieces
from fanline.engine.tasks.fold import TaskFold
from fanline.engine.tasks.monitor.monitored_task import MonitoredTask
from fanline.protocol.channels import check_channel, is_pattern
from fanline.protocol.envelope import Envelope
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.management.answers import (
    ConnectionInfo,
    ConnectionsPage,
    CountedNames,
    StoredMessage,
    StrangersPage,
)
from fanline.protocol.management.questions import (
    SUBJECT,
    Answered,
    AudienceQuestion,
    CallQuestion,
    ChannelPresenceQuestion,
    ChannelsQuestion,
    ConnectionQuestion,
    ConnectionsQuestion,
    DisconnectQuestion,
    HistoryQuestion,
    ManagementQuestion,
    PingQuestion,
    SendQuestion,
    StatisticsQuestion,
    StrangersQuestion,
    SubscribeQuestion,
    TaskQuestion,
    UnsubscribeQuestion,
    UsersQuestion,
    decode_question,
)
from fanline.protocol.messages.commands import AskHistory
from fanline.protocol.tasks.snapshot import snapshot_fields
from fanline.protocol.tasks.states import TaskState

_RETRY_SECONDS = 1.0
_CATCH_UP_SECONDS = 1.0
_PAGE_BYTES = 512 * 1024  # about, of one answer: NATS takes 1 MiB
_MOST = 64  # questions that are answered at a time; further ones are left, and the control process says so

encode = msgspec.json.Encoder().encode


class Management:
    """Of one worker."""

    def __init__(
        self,
        *,
        bus: Bus,
        members: Members,
        namespaces: Namespaces,
        registry: Registry,
        hub: Hub,
        presence: Presence,
        paging: Paging,
        joining: Joining,
        counters: Counters,
        faults: Faults,
        nursery: trio.Nursery,
        commands: Commands,
        calls: Calls,
        unrecorded: Callable[[], Iterable[MonitoredTask]],
        known_shares: Callable[[], list[int]],
        catch_up: Callable[[], Awaitable[None]],
    ) -> None:
        """`unrecorded()`: running tasks that are monitored here and have no record yet; `known_shares()`: the shares
        of the tasks for which that is true; `catch_up()`: have the monitor
        take everything that is stored by now. BusError.
        """
        self._bus = bus
        self._members = members
        self._namespaces = namespaces
        self._registry = registry
        self._hub = hub
        self._presence = presence
        self._paging = paging
        self._joining = joining
        self._faults = faults
        self._nursery = nursery
        self._unrecorded = unrecorded
        self._known_shares = known_shares
        self._catch_up = catch_up
        self._lister = ConnectionLister(registry, members.own)
        self.acting = Acting(registry, members.own, commands, calls)
        self._taker = StatisticsTaker(members, registry, counters, hub.names)
        self._under_way = 0
        self._looking = trio.Lock()
        """Held by a question for which many connections or channels are gone through. One at a time holds the loop, in
        slices, however many are asked.
        """

    async def run(self) -> None:
        """Answer from now on."""
        while True:
            try:
                await self._bus.answer(SUBJECT, self._take)
            except BusError:
                await trio.sleep(_RETRY_SECONDS)
            else:
                await trio.sleep_forever()

    def _take(self, payload: bytes, respond: Respond) -> None:
        question = decode_question(payload)
        if question is None or question.to not in ("", self._members.id, self._members.own.server):
            return
        if self._under_way < _MOST:
            self._under_way += 1
            self._nursery.start_soon(self._answer, question, respond, name="management")

    async def _answer(self, question: ManagementQuestion, respond: Respond) -> None:
        """The edge of one question: a fault in it stays there."""
        worker = self._members.id
        try:
            body = await _VERBS[type(question)](self, question)
            respond(encode(Answered(worker, Raw(encode(body)))))
        except (MessageError, BusError) as error:
            respond(encode(Answered(worker, code=code_of(error), message=str(error))))
        except Exception:  # noqa: BLE001  # our own fault
            self._faults.report("management", "a question of the control process cannot be answered")
            respond(encode(Answered(worker, code=ErrorCode.UNAVAILABLE, message="this worker cannot answer")))
        finally:
            self._under_way -= 1

    # --- verbs --------------------------------------------------------------------------------------------------------

    async def statistics(self, question: StatisticsQuestion) -> WorkerStatistics:
        async with self._looking:
            return await self._taker.take(fresh=question.fresh)

    async def connections(self, question: ConnectionsQuestion) -> ConnectionsPage:
        async with self._looking:
            return await self._lister.page(question)

    async def connection(self, question: ConnectionQuestion) -> ConnectionInfo | None:
        return self._lister.one(question.connection)

    async def audience(self, question: AudienceQuestion) -> int:
        without = None if question.without is None else self._registry.find(question.without)
        return self._hub.audience(question.channel, without)

    async def users(self, question: UsersQuestion) -> CountedNames:
        async with self._looking:
            return await page_of_names(await self._count_users(), question.after, question.prefix, question.limit)

    async def channels(self, question: ChannelsQuestion) -> CountedNames:
        names = (name for name in self._hub.names() if not is_pattern(name))
        counts = ((name, count) for name in names if (count := self._hub.interest(name)))
        async with self._looking:
            return await page_of_names(counts, question.after, question.prefix, question.limit)

    async def presence(self, question: ChannelPresenceQuestion) -> Raw:
        channel = check_channel(question.channel)
        self._presence.check_covers(channel)
        async with self._presence.watches.following(channel) as watch:
            return watch.news.data()

    async def history(self, question: HistoryQuestion) -> dict[str, Any]:
        channel = check_channel(question.channel)
        if not self._namespaces.of(channel).durable:
            raise MessageError(ErrorCode.NOT_SUPPORTED, f"{channel} has no history: its namespace is not durable")
        asked = AskHistory(limit=question.limit, before=question.before)
        page = await self._paging.page(channel, asked, None)
        messages = [_stored_message(each) for each in page.data["messages"]]
        return {"epoch": page.epoch, "offset": page.offset, "messages": messages, "more": page.data["more"]}

    async def task(self, question: TaskQuestion) -> dict[str, Any]:
        channel = check_channel(question.channel)
        if not self._namespaces.of(channel).tasks:
            raise MessageError(ErrorCode.NOT_SUPPORTED, f"{channel} is no task")
        async with self._joining.steady(channel) as durable:
            assert isinstance(durable.fold, TaskFold)
            if durable.fold.snapshot.state is TaskState.UNKNOWN:
                raise MessageError(ErrorCode.UNKNOWN_TASK, f"nothing was ever heard of {channel}")
            return snapshot_fields(durable.fold.snapshot)

    async def strangers(self, question: StrangersQuestion) -> StrangersPage:
        loaded = self._known_shares()
        with trio.move_on_after(_CATCH_UP_SECONDS) as scope:
            await self._catch_up()
        async with self._looking:
            kept = set() if scope.cancelled_caught else {*loaded} & {*self._known_shares()}
            behind = [task for task in self._unrecorded() if task.channel > question.after]
        items, size = list[tuple[str, dict[str, Any]]](), 0
        for task in nsmallest(question.limit, behind, key=lambda each: each.channel):
            items.append((task.channel, snapshot_fields(task.snapshot)))
            size += len(encode(items[-1]))
            if size > _PAGE_BYTES:
                break
        return StrangersPage(items, more=len(items) < len(behind), shares=sorted(kept))

    async def _count_users(self) -> Iterable[tuple[str, int]]:
        """Each user with its number of connections."""
        slices, counts = Slices(LOOK_SECONDS), Counter[str]()
        for piece in pieces(self._registry.users(), CHUNK):
            counts.update(user for user in piece if user is not None)
            await slices.breathe()
        return counts.items()


_Verb = Callable[[Management, Any], Awaitable[Any]]
_VERBS: dict[type[ManagementQuestion], _Verb] = {
    StatisticsQuestion: Management.statistics,
    ConnectionsQuestion: Management.connections,
    ConnectionQuestion: Management.connection,
    AudienceQuestion: Management.audience,
    UsersQuestion: Management.users,
    ChannelsQuestion: Management.channels,
    ChannelPresenceQuestion: Management.presence,
    HistoryQuestion: Management.history,
    TaskQuestion: Management.task,
    StrangersQuestion: Management.strangers,
    SendQuestion: lambda management, question: management.acting.send(question),
    PingQuestion: lambda management, question: management.acting.ping(question),
    DisconnectQuestion: lambda management, question: management.acting.disconnect(question),
    SubscribeQuestion: lambda management, question: management.acting.subscribe(question),
    UnsubscribeQuestion: lambda management, question: management.acting.unsubscribe(question),
    CallQuestion: lambda management, question: management.acting.call(question),
}


def _stored_message(envelope: Envelope) -> StoredMessage:
    return StoredMessage(
        offset=envelope.offset or 0,
        id=envelope.id,
        event=envelope.event,
        data=envelope.value,
        sender=envelope.sender,
        time=None if envelope.time is None else time_text(envelope.time),
        priority=envelope.priority,
        extra=envelope.extra or {},
    )
