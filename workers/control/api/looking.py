"""The calls that only read."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from fanline.engine.management.names import merge_names
from fanline.engine.management.statistics import WorkerStatistics
from fanline.protocol.auth.api_keys import ApiRight
from fanline.protocol.channels import namespace_of
from fanline.protocol.hooks.counters import CountersQuestion
from fanline.protocol.management.answers import ConnectionInfo, ConnectionsPage, CountedNames, StoredMessage
from fanline.protocol.management.questions import (
    ChannelPresenceQuestion,
    ChannelsQuestion,
    ConnectionQuestion,
    ConnectionsQuestion,
    HistoryQuestion,
    StatisticsQuestion,
    UsersQuestion,
)
from fanline.protocol.messages.answers import PresenceData
from fanline.workers.control.api.models import (
    ApiInfo,
    ApiPage,
    ChannelDetails,
    ChannelSummary,
    Coverage,
    Item,
    OnlineUser,
    PresenceAnswer,
    PresenceUser,
    Stats,
    StreamSummary,
)
from fanline.workers.control.api.parameters import (
    After,
    ChannelName,
    ConnectionId,
    Limit,
    Prefix,
    UserId,
    checked_channel,
)
from fanline.workers.control.cluster import Gathered
from fanline.workers.control.http.callers import needing
from fanline.workers.control.http.problems import ApiError
from fanline.workers.control.parts import ControlParts, Parts
from fanline.workers.control.statistics import summed

router = APIRouter(dependencies=[Depends(needing(ApiRight.READ))])


@router.get("/info")
async def info(parts: Parts) -> ApiInfo:
    """What the server is, and how clients reach it."""
    return parts.info


@router.get("/stats")
async def stats(parts: Parts) -> Stats:
    """The counts of all workers of the cluster, and the hooks and webhooks of its servers."""
    told = await parts.cluster.gather(StatisticsQuestion(), WorkerStatistics)
    servers = {each.server for each in told.bodies}
    return summed(told, await parts.cluster.handlers_counters(CountersQuestion(), len(servers)))


@router.get("/connections")
async def connections(
    parts: Parts,
    after: After = "",
    limit: Limit = 100,
    user: Annotated[str | None, Query(max_length=128, description="Only those of this user.")] = None,
    channel: Annotated[str | None, Query(max_length=300, description="Only those subscribed to it.")] = None,
    route: Annotated[str | None, Query(max_length=200, description="Only those of this route, as in `/ws`.")] = None,
) -> ApiPage[ConnectionInfo]:
    """The connections of the whole cluster, in the order of their ids."""
    question = ConnectionsQuestion(after=after, limit=limit, user=user, channel=channel, route=route)
    return merged_connections(await parts.cluster.gather(question, ConnectionsPage), limit)


@router.get("/connections/{connection_id}")
async def connection(parts: Parts, connection_id: ConnectionId) -> ConnectionInfo:
    """One connection, with all its subscriptions."""
    found = await parts.cluster.find(ConnectionQuestion(connection=connection_id), ConnectionInfo)
    if found is None:
        raise ApiError(404, "not_found", "no connection with this id is open", where="path.connection_id")
    return found


@router.get("/users/{user_id}/connections")
async def connections_of_user(
    parts: Parts, user_id: UserId, after: After = "", limit: Limit = 100
) -> ApiPage[ConnectionInfo]:
    """The connections of one user."""
    question = ConnectionsQuestion(after=after, limit=limit, user=user_id)
    return merged_connections(await parts.cluster.gather(question, ConnectionsPage), limit)


@router.get("/online-users")
async def online_users(parts: Parts, after: After = "", limit: Limit = 100, prefix: Prefix = "") -> ApiPage[OnlineUser]:
    """The users with at least one connection, by name."""
    question = UsersQuestion(after=after, limit=limit, prefix=prefix)
    return await _counted(parts, question, lambda name, count: OnlineUser(user_id=name, connections=count))


@router.get("/channels")
async def channels(parts: Parts, after: After = "", limit: Limit = 100, prefix: Prefix = "") -> ApiPage[ChannelSummary]:
    """The channels that have subscribers, by name."""
    question = ChannelsQuestion(after=after, limit=limit, prefix=prefix)
    return await _counted(parts, question, lambda name, count: ChannelSummary(channel=name, subscribers=count))


@router.get("/channels/{channel}")
async def channel_details(parts: Parts, channel: ChannelName) -> ChannelDetails:
    """One channel: its subscribers, and what is stored of it."""
    name = checked_channel(channel)
    namespace = parts.namespaces.of(name)
    told = await parts.cluster.gather(ChannelsQuestion(prefix=name, limit=1), CountedNames)
    counts = [count for each in told.bodies for found, count in each.items if found == name]
    stream = None
    if namespace.durable:
        newest, state = await parts.bus.last_offsets([name]), await parts.bus.stream_state(name)
        stream = StreamSummary(last_offset=newest.get(name, 0), epoch=state.epoch.name)
    return ChannelDetails(
        channel=name,
        subscribers=sum(counts),
        namespace=namespace_of(name),
        durable=namespace.durable,
        presence=namespace.presence,
        stream=stream,
        workers=coverage(told),
    )


@router.get("/channels/{channel}/presence")
async def channel_presence(parts: Parts, channel: ChannelName) -> PresenceAnswer:
    """The users on a channel of a namespace with presence."""
    name = checked_channel(channel)
    found = await parts.cluster.ask_one(ChannelPresenceQuestion(channel=name), PresenceData)
    users = None if found.users is None else [PresenceUser(user_id=u.user_id, username=u.username) for u in found.users]
    return PresenceAnswer(
        channel=name, count=found.count, connections=found.connections, anonymous=found.anonymous, users=users
    )


@router.get("/channels/{channel}/history")
async def channel_history(
    parts: Parts,
    channel: ChannelName,
    limit: Annotated[int, Query(ge=1, le=100, description="The most messages of a page.")] = 100,
    before: Annotated[
        int | None, Query(ge=1, le=2**53, description="`next` of the page before: only older messages.")
    ] = None,
) -> ApiPage[StoredMessage]:
    """The stored messages of a durable channel: the newest page first, each page oldest first."""
    name = checked_channel(channel)
    question = HistoryQuestion(channel=name, limit=limit, before=before)
    found: dict[str, Any] = await parts.cluster.ask_one(question, dict)
    return ApiPage(
        items=[StoredMessage(**each) for each in found["messages"]],
        next=str(found["offset"]) if found["more"] else None,
        total=None,
    )


async def _counted(
    parts: ControlParts, question: UsersQuestion | ChannelsQuestion, make: Callable[[str, int], Item]
) -> ApiPage[Item]:
    """One page of names, each with its number over all workers. ApiError, BusError."""
    told = await parts.cluster.gather(question, CountedNames)
    page = merge_names(told.bodies, question.limit)
    items = [make(name, count) for name, count in page.items]
    following = page.items[-1][0] if page.more and page.items else None
    return ApiPage(items=items, next=following, total=page.total, workers=coverage(told))


def merged_connections(told: Gathered[ConnectionsPage], limit: int) -> ApiPage[ConnectionInfo]:
    """One page of the workers' answers. Items beyond the last one of a worker that has more wait for later pages."""
    items = sorted((each for part in told.bodies for each in part.items), key=lambda each: _order(each.connection_id))
    ends = [_order(part.items[-1].connection_id) for part in told.bodies if part.more]
    known = [each for each in items if not ends or _order(each.connection_id) <= min(ends)]
    shown, more = known[:limit], bool(ends) or len(known) > limit
    return ApiPage(
        items=shown,
        next=shown[-1].connection_id if more and shown else None,
        total=sum(part.total for part in told.bodies),
        workers=coverage(told),
    )


def coverage(told: Gathered[Any]) -> Coverage:
    """Which workers an answer comes from."""
    return Coverage(answered=told.answered, missing=told.missing)


def _order(connection_id: str) -> tuple[str, int]:
    process, _, number = connection_id.partition("-")
    return process, int(number, 16)
