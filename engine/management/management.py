"""Answers the control process: one question at a time for each, beside the connections and in slices.

Who may ask is decided by NATS: producers cannot reach the engine's own subjects (docs: ADR 22). Whether the caller
behind a question may ask it was decided by the control process.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import trio
from msgspec import Raw

from fanline.engine.bus.interface import Bus, BusError, Respond
from fanline.engine.channels.durable.paging import Paging
from fanline.engine.channels.hub import Hub
from fanline.engine.channels.join import Joining
from fanline.engine.cluster.members import Members
from fanline.engine.connections.registry import Registry
from fanline.engine.counters import Counters
from fanline.engine.faults import Faults
from fanline.engine.management.acting import Acting
from fanline.engine.management.connections import ConnectionLister, time_text
from fanline.engine.management.names import page_of_names
from fanline.engine.management.statistics import StatisticsTaker, WorkerStatistics
from fanline.engine.namespaces import Namespaces
from fanline.engine.presence.presence import Presence
from fanline.engine.sessions.calls import Calls
from fanline.engine.sessions.commands import Commands
from fanline.engine.sessions.refusals import code_of
from fanline.engine.tasks.fold import TaskFold
from fanline.protocol.channels import check_channel, is_pattern
from fanline.protocol.envelope import Envelope
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.management.answers import ConnectionInfo, ConnectionsPage, CountedNames, StoredMessage
from fanline.protocol.management.questions import (
    SUBJECT,
    Answered,
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
    SubscribeQuestion,
    TaskQuestion,
    UnsubscribeQuestion,
    UsersQuestion,
    decode_question,
)
from fanline.protocol.messages import AskHistory
from fanline.protocol.tasks.snapshot import snapshot_fields
from fanline.protocol.tasks.states import TaskState

_RETRY_SECONDS = 1.0
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
    ) -> None:
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
        name = members.live()[members.id].name
        self._lister = ConnectionLister(registry, name)
        self.acting = Acting(registry, name, commands, calls)
        self._taker = StatisticsTaker(members, registry, counters, self._channels)
        self._under_way = 0

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
        if question is None or question.to not in ("", self._members.id, self._taker.server):
            return
        if self._under_way < _MOST:
            self._under_way += 1
            self._nursery.start_soon(self._answer, question, respond, name="management")

    async def _answer(self, question: ManagementQuestion, respond: Respond) -> None:
        """The edge of one question: whatever goes wrong in it, nobody else notices."""
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

    async def statistics(self, _: StatisticsQuestion) -> WorkerStatistics:
        return await self._taker.take()

    async def connections(self, question: ConnectionsQuestion) -> ConnectionsPage:
        return await self._lister.page(question)

    async def connection(self, question: ConnectionQuestion) -> ConnectionInfo | None:
        return self._lister.one(question.connection)

    async def users(self, question: UsersQuestion) -> CountedNames:
        counts: dict[str, int] = {}
        for user in self._registry.users():
            if user is not None:
                counts[user] = counts.get(user, 0) + 1
        return page_of_names(counts.items(), question.after, question.prefix, question.limit)

    async def channels(self, question: ChannelsQuestion) -> CountedNames:
        counts = ((name, count) for name, count in self._hub.subscribers().items() if not is_pattern(name))
        return page_of_names(counts, question.after, question.prefix, question.limit)

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

    def _channels(self) -> list[str]:
        return [name for name in self._hub.subscribers() if not is_pattern(name)]


_Verb = Callable[[Management, Any], Awaitable[Any]]
_VERBS: dict[type[ManagementQuestion], _Verb] = {
    StatisticsQuestion: Management.statistics,
    ConnectionsQuestion: Management.connections,
    ConnectionQuestion: Management.connection,
    UsersQuestion: Management.users,
    ChannelsQuestion: Management.channels,
    ChannelPresenceQuestion: Management.presence,
    HistoryQuestion: Management.history,
    TaskQuestion: Management.task,
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
