"""The call that takes tokens back."""

import time
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import Field

from fanline.protocol.auth.api_keys import ApiRight
from fanline.protocol.auth.revocation import Revocation, encode_revocation
from fanline.protocol.nats.names import Bucket
from fanline.workers.control.api.models import ApiModel
from fanline.workers.control.api.parameters import NAME
from fanline.workers.control.http.callers import acting
from fanline.workers.control.http.problems import ApiError
from fanline.workers.control.http.requests import StrictRoute
from fanline.workers.control.parts import Parts

router = APIRouter(route_class=StrictRoute, dependencies=[Depends(acting(ApiRight.REVOKE))])
_Name = Annotated[str, Field(min_length=1, max_length=128, pattern=NAME)]


class Revoking(ApiModel):
    """Which tokens are taken back: one of the first three."""

    user_id: _Name | None = None
    """All tokens of this user that were issued until now."""
    token_id: _Name | None = None
    """The token with this `jti`."""
    everyone: bool = False
    """All tokens that were issued until now."""
    days: Annotated[float, Field(gt=0, le=3650)] = 30.0
    """Days for which this is remembered: as long as a token may live."""


class Revoked(ApiModel):
    """It is stored, and all workers know it within a second."""

    before: float
    """Unix seconds: tokens that were issued before are taken back."""


@router.post("/revoke")
async def revoke(parts: Parts, wanted: Revoking) -> Revoked:
    """Take tokens back: their connections end within a second on every worker, and they are not accepted again."""
    if (wanted.user_id is not None) + (wanted.token_id is not None) + wanted.everyone != 1:
        message = "give one of user_id, token_id and everyone"
        raise ApiError(422, "invalid", message, where="body")
    now, seconds = time.time(), wanted.days * 86_400
    revocation = Revocation(user=wanted.user_id, token_id=wanted.token_id, before=now, until=now + seconds)
    await parts.bus.kv_put(Bucket.REVOKED, revocation.key, encode_revocation(revocation), seconds)
    return Revoked(before=now)
