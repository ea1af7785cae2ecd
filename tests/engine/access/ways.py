"""Every way of lacking a right, and beside each the nearest way of having it."""

import time
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Any, NamedTuple

from fanline.engine.access.settings import AccessSettings
from fanline.protocol.auth.revocation import Revocation
from fanline.protocol.auth.rights import RIGHT_NAMES
from tests.engine.access.clients import token
from tests.engine.access.speakers import RIGHTS
from tests.engine.task_channels import CHANNEL

ALL = [*RIGHT_NAMES]
LEEWAY = 10.0
_GRANTED = {CHANNEL: ALL}
_ALL = "+".join(ALL)
_NEAR = (
    "task:build-*",
    "task:buildx",
    "task:buil",
    "task:build.1",
    "task:bin*",
    "tasks:build",
    "project:*",
    "doc:build",
)
"""Patterns that are all but CHANNEL's."""
_NOW = time.time()


class Outcome(Enum):
    """How a client that lacks a right is answered."""

    DENIED = auto()
    """The command is: `permission_denied`, or the plain dialect's own words; the connection goes on."""
    STRANGER = auto()
    """In v1 the command is, with `unauthenticated`; a plain client is not let in."""
    SHUT = auto()
    """The connection is: `unauthenticated` and 4401 in v1, HTTP 401 in the plain dialect."""


Shown = Callable[[str], str | None]
"""right -> the token that is shown."""


class Side(NamedTuple):
    """What a client comes with, and the channel that it asks for."""

    token: Shown
    channel: str = CHANNEL
    later: Shown | None = None
    """Shown on the open connection; v1 only."""


class Way(NamedTuple):
    """One way of lacking a right."""

    outcome: Outcome
    lacking: Side
    having: Side
    access: AccessSettings | None = None
    revoked: Sequence[Revocation] = ()
    rights: Sequence[str] = RIGHTS
    outside: Sequence[str] = ("permission_denied",)
    """The codes with which the channel may be refused in v1: a name may not even be one."""


def _none(right: str) -> None:
    return None


def _shown(user: str | None = "anna", **claims: Any) -> Shown:
    return lambda right: token(user, **claims)


def _others(right: str) -> list[str]:
    """All rights that do not hold this one."""
    return [name for name in ALL if RIGHT_NAMES[right] not in RIGHT_NAMES[name]]


_FULL = Side(_shown(channels=_GRANTED))
WAYS = {
    "no token where tokens are needed": Way(
        Outcome.STRANGER,
        Side(_none),
        _FULL,
    ),
    "anonymous without it": Way(
        Outcome.DENIED,
        Side(_none, "task:closed"),
        Side(_none),
        AccessSettings(anonymous=(f"{CHANNEL}:{_ALL}",)),
    ),
    "a token without the grant": Way(
        Outcome.DENIED,
        Side(_shown()),
        _FULL,
    ),
    "a grant on similar channels": Way(
        Outcome.DENIED,
        Side(_shown(channels=dict.fromkeys(_NEAR, ALL))),
        Side(_shown(channels={"task:bui*": ALL})),
    ),
    "a grant on the channel of another user": Way(
        Outcome.DENIED,
        Side(_shown("buil")),
        Side(_shown("build")),
        AccessSettings(everyone=(f"task:{{user}}:{_ALL}",)),
    ),
    "a grant with only another right": Way(
        Outcome.DENIED,
        Side(lambda right: token(channels={CHANNEL: _others(right)})),
        Side(lambda right: token(channels={CHANNEL: [right]})),
    ),
    "a role that is not configured": Way(
        Outcome.DENIED,
        Side(_shown(roles=["ghost", "Editor", "editor2"])),
        Side(_shown(roles=["ghost", "editor"])),
        AccessSettings(roles={"editor": (f"{CHANNEL}:{_ALL}",)}),
    ),
    "expired by a second": Way(
        Outcome.SHUT,
        Side(lambda right: token(ends_in=-LEEWAY - 1, channels=_GRANTED)),
        Side(lambda right: token(ends_in=-LEEWAY / 2, channels=_GRANTED)),
    ),
    "not yet valid": Way(
        Outcome.SHUT,
        Side(lambda right: token(nbf=time.time() + LEEWAY + 60, channels=_GRANTED)),
        Side(lambda right: token(nbf=time.time() + LEEWAY / 2, channels=_GRANTED)),
    ),
    "issued in the future": Way(
        Outcome.SHUT,
        Side(lambda right: token(iat=time.time() + LEEWAY + 60, channels=_GRANTED)),
        Side(lambda right: token(iat=time.time() + LEEWAY / 2, channels=_GRANTED)),
    ),
    "signed with another key": Way(
        Outcome.SHUT,
        Side(_shown(secret="another secret that is long enough", channels=_GRANTED)),
        _FULL,
    ),
    "revoked by its id": Way(
        Outcome.SHUT,
        Side(_shown(jti="gone", channels=_GRANTED)),
        Side(_shown(jti="kept", channels=_GRANTED)),
        revoked=[Revocation(token_id="gone", before=0, until=_NOW + 1e8)],
    ),
    "revoked by its user": Way(
        Outcome.SHUT,
        Side(_shown("bob", iat=_NOW - 2, channels=_GRANTED)),
        Side(_shown("bob", iat=_NOW, channels=_GRANTED)),
        revoked=[Revocation(user="bob", before=_NOW - 1, until=_NOW + 1e8)],
    ),
    "a share link of another channel": Way(
        Outcome.DENIED,
        Side(_shown(None, channels={"task:other": ALL})),
        Side(_shown(None, channels=_GRANTED)),
        AccessSettings(everyone=(f"{CHANNEL}:{_ALL}",)),  # who has a name
    ),
    "a namespace that is not configured": Way(
        Outcome.DENIED,
        Side(_shown(roles=["admin"]), "rumours:build"),
        Side(_shown(roles=["admin"])),
    ),
    "a namespace of the backend": Way(
        Outcome.DENIED,
        Side(_shown(roles=["admin"]), "sealed:build"),
        Side(_shown(roles=["admin"])),
        rights=("pub",),
    ),
    "after a refresh in place that removed it": Way(
        Outcome.DENIED,
        Side(_shown(channels=_GRANTED), later=lambda right: token(channels={CHANNEL: _others(right)})),
        Side(_shown(), later=_shown(channels=_GRANTED)),
    ),
    "a whole namespace with only some of its channels": Way(
        Outcome.DENIED,
        Side(_shown(channels={CHANNEL: ALL, "task:b*": ALL, "doc:*": ALL}), "task:*"),
        Side(_shown(channels={CHANNEL: ALL, "task:b*": ALL})),
        outside=("permission_denied", "bad_channel"),
    ),
}
