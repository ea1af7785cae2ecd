"""The calls that act on connections and users."""

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import Field

from fanline.protocol.auth.api_keys import ApiRight
from fanline.protocol.channels import namespace_of
from fanline.protocol.management.answers import PingResult
from fanline.protocol.management.questions import (
    DisconnectQuestion,
    PingQuestion,
    SubscribeQuestion,
    UnsubscribeQuestion,
)
from fanline.protocol.nats.names import MONITOR_NAMESPACE
from fanline.workers.control.api.models import ApiModel, Coverage
from fanline.workers.control.api.parameters import NAME, ConnectionId, UserId, checked_channel
from fanline.workers.control.http.callers import acting
from fanline.workers.control.http.problems import ApiError
from fanline.workers.control.http.requests import StrictRoute
from fanline.workers.control.parts import Parts

router = APIRouter(route_class=StrictRoute, dependencies=[Depends(acting(ApiRight.CONNECTIONS))])


class Disconnecting(ApiModel):
    """How connections are closed."""

    reconnect: bool = False
    """Whether clients should come back: they are closed with 1013, otherwise with 4011 (plain clients: 1000)."""


class UserDisconnecting(Disconnecting):
    """The user whose connections are closed, and how."""

    user_id: Annotated[str, Field(min_length=1, max_length=128, pattern=NAME)]


class Disconnected(ApiModel):
    """What was closed."""

    disconnected: int
    """Connections."""
    workers: Coverage


class OnChannel(ApiModel):
    """A channel."""

    channel: Annotated[str, Field(max_length=300)]


class SubscriptionAnswer(ApiModel):
    """Whether a connection is subscribed to a channel."""

    connection_id: str
    channel: str
    subscribed: bool


class Pinged(ApiModel):
    """How long the connections of a user took to answer a ping."""

    connections: list[PingResult]
    workers: Coverage


@router.post("/ping/{user_id}")
async def ping_user(parts: Parts, user_id: UserId) -> Pinged:
    """Ping all connections of a user, and wait for their answers."""
    told = await parts.cluster.gather(PingQuestion(user=user_id), list[PingResult])
    found = [each for part in told.bodies for each in part]
    return Pinged(connections=found, workers=Coverage(answered=told.answered, missing=told.missing))


@router.post("/users/disconnect")
async def disconnect_user(parts: Parts, wanted: UserDisconnecting) -> Disconnected:
    """Close all connections of a user. It may connect again; to prevent that, revoke its tokens."""
    question = DisconnectQuestion(user=wanted.user_id, reconnect=wanted.reconnect)
    told = await parts.cluster.gather(question, int)
    covered = Coverage(answered=told.answered, missing=told.missing)
    return Disconnected(disconnected=sum(told.bodies), workers=covered)


@router.post("/connections/{connection_id}/disconnect")
async def disconnect_connection(
    parts: Parts, connection_id: ConnectionId, wanted: Disconnecting | None = None
) -> Disconnected:
    """Close one connection."""
    reconnect = wanted is not None and wanted.reconnect
    told = await parts.cluster.gather(DisconnectQuestion(connection=connection_id, reconnect=reconnect), int)
    if not sum(told.bodies):
        raise _unknown(told.missing)
    return Disconnected(disconnected=sum(told.bodies), workers=Coverage(answered=told.answered, missing=told.missing))


@router.post("/connections/{connection_id}/subscribe")
async def subscribe_connection(parts: Parts, connection_id: ConnectionId, wanted: OnChannel) -> SubscriptionAnswer:
    """Subscribe a connection to a channel, whatever its rights; its client gets the answer to a `sub`. The monitor's
    channel is for operators, and refused.
    """
    channel = checked_channel(wanted.channel, "body.channel")
    if namespace_of(channel) == MONITOR_NAMESPACE:
        message = f"{channel} is for operators"
        raise ApiError(403, "permission_denied", message, where="body.channel", advice="Connect to /ws/admin/monitor.")
    told = await parts.cluster.gather(SubscribeQuestion(connection=connection_id, channel=channel), bool)
    if not any(told.bodies):
        raise _unknown(told.missing)
    return SubscriptionAnswer(connection_id=connection_id, channel=channel, subscribed=True)


@router.post("/connections/{connection_id}/unsubscribe")
async def unsubscribe_connection(parts: Parts, connection_id: ConnectionId, wanted: OnChannel) -> SubscriptionAnswer:
    """End a subscription of a connection, and tell its client."""
    question = UnsubscribeQuestion(connection=connection_id, channel=wanted.channel)
    if await parts.cluster.find(question, bool) is None:
        raise _unknown([])
    return SubscriptionAnswer(connection_id=connection_id, channel=wanted.channel, subscribed=False)


def _unknown(missing: list[str]) -> ApiError:
    """No worker that has answered has the connection."""
    if missing:
        return ApiError(503, "unavailable", f"no answer from {', '.join(missing)}", advice="Try again later.")
    return ApiError(404, "not_found", "no connection with this id is open", where="path.connection_id")
