"""The calls about events that a webhook did not take."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query

from fanline.protocol.auth.api_keys import ApiRight
from fanline.protocol.hooks.dead_letters import (
    DeadLetterDetails,
    DeadLetterInfo,
    DeadLettersPage,
    DeadQuestion,
    DropDead,
    ListDead,
    PostDead,
    ShowDead,
)
from fanline.workers.control.api.models import ApiPage
from fanline.workers.control.api.parameters import Limit
from fanline.workers.control.cluster import Body
from fanline.workers.control.http.callers import acting, needing
from fanline.workers.control.http.problems import ApiError
from fanline.workers.control.http.requests import StrictRoute
from fanline.workers.control.parts import ControlParts, Parts

router = APIRouter(route_class=StrictRoute, prefix="/dead-letters")
_MOST = 2**53
_Looking = Depends(needing(ApiRight.READ))
_Acting = Depends(acting(ApiRight.ADMIN))
_Number = Annotated[int, Path(ge=1, le=_MOST, description="As in `dead-letters`.")]


async def _ask(parts: ControlParts, question: DeadQuestion, kind: type[Body]) -> Body:
    """ApiError, BusError."""
    if not parts.settings.webhooks:
        raise ApiError(400, "not_supported", "the settings of this server have no webhooks")
    return await parts.cluster.dead_letters(question, kind)


@router.get("", dependencies=[_Looking])
async def dead_letters(
    parts: Parts,
    after: Annotated[int, Query(ge=0, le=_MOST, description="`next` of the page before.")] = 0,
    limit: Limit = 100,
) -> ApiPage[DeadLetterInfo]:
    """The events that webhooks did not take, in the order in which they were given up."""
    page = await _ask(parts, ListDead(after=after, limit=limit), DeadLettersPage)
    following = str(page.items[-1].number) if page.more and page.items else None
    return ApiPage(items=page.items, next=following, total=None)


@router.get("/{number}", dependencies=[_Looking])
async def dead_letter(parts: Parts, number: _Number) -> DeadLetterDetails:
    """One of them, with what the event says."""
    return await _ask(parts, ShowDead(number=number), DeadLetterDetails)


@router.post("/{number}/post", dependencies=[_Acting])
async def post_dead_letter(parts: Parts, number: _Number) -> DeadLetterInfo:
    """Post one again to its webhook. If the webhook accepts it, it is no longer a dead letter."""
    return await _ask(parts, PostDead(number=number), DeadLetterInfo)


@router.delete("/{number}", dependencies=[_Acting])
async def drop_dead_letter(parts: Parts, number: _Number) -> DeadLetterInfo:
    """Delete one."""
    return await _ask(parts, DropDead(number=number), DeadLetterInfo)
