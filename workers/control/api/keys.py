"""The calls about keys themselves; `fanline apikey` uses them."""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from pydantic import Field

from fanline.engine.management.connections import time_text
from fanline.protocol.auth.api_keys import ID_CHARACTERS, ApiKey, ApiRight
from fanline.workers.control.api.models import ApiModel
from fanline.workers.control.api.parameters import NAME
from fanline.workers.control.http.callers import needing
from fanline.workers.control.http.problems import ApiError
from fanline.workers.control.http.requests import StrictRoute
from fanline.workers.control.parts import Parts

router = APIRouter(route_class=StrictRoute, prefix="/keys", dependencies=[Depends(needing(ApiRight.ADMIN))])
_MAX_DAYS = 36_500


class KeyInfo(ApiModel):
    """A key; its text is not stored."""

    id: str
    name: str
    rights: list[ApiRight]
    created: str
    expires: str | None
    """null: never."""


class NewKey(ApiModel):
    """A key to be made."""

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=NAME)]
    """For people: who has the key, and what for."""
    rights: Annotated[list[ApiRight], Field(min_length=1, max_length=len(ApiRight))]
    days: Annotated[float, Field(gt=0, le=_MAX_DAYS)] | None = None
    """Days after which it expires; null: never."""


class CreatedKey(KeyInfo):
    """A key that was made just now."""

    key: str
    """Its text, which is shown only here."""


@router.get("")
async def keys(parts: Parts) -> list[KeyInfo]:
    """All keys, the oldest first."""
    return [KeyInfo(**_fields(key_id, key)) for key_id, key in (await parts.keys.all()).items()]


@router.post("", status_code=201)
async def create_key(parts: Parts, wanted: NewKey) -> CreatedKey:
    """Make a key."""
    expires = None if wanted.days is None else time.time() + wanted.days * 86_400
    key_id, text, key = await parts.keys.create(wanted.name, wanted.rights, expires)
    return CreatedKey(key=text, **_fields(key_id, key))


@router.delete("/{key_id}")
async def revoke_key(parts: Parts, key_id: Annotated[str, Path(pattern=rf"^[0-9a-f]{{{ID_CHARACTERS}}}$")]) -> KeyInfo:
    """Take a key back: from now on it is not accepted."""
    found = (await parts.keys.all()).get(key_id)
    if found is None or not await parts.keys.revoke(key_id):
        raise ApiError(404, "not_found", "there is no key with this id", where="path.key_id")
    return KeyInfo(**_fields(key_id, found))


def _fields(key_id: str, key: ApiKey) -> dict[str, Any]:
    return {
        "id": key_id,
        "name": key.name,
        "rights": list(key.rights),
        "created": time_text(key.created * 1000),
        "expires": None if key.expires is None else time_text(key.expires * 1000),
    }
