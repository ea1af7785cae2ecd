"""The rights of an identity: what everyone may do, what its roles may do, and what its token says."""

from collections.abc import Iterable, Mapping

from fanline.engine.access.identity import Identity
from fanline.engine.access.settings import AccessSettings
from fanline.protocol.auth.claims import Claims
from fanline.protocol.auth.rights import EVERY_CHANNEL, EVERY_RIGHT, USER, Grant, Grants, Right, parse_grant

OWN_INBOX = Grant(f"user:{USER}", Right.SUB | Right.HISTORY | Right.PRESENCE)
"""What every user may do with the channel of its own name."""
_EVERYTHING = (Grant("*", EVERY_RIGHT),)
ADMINS = frozenset(("admin", "super_admin"))
"""Roles whose holders may manage the server, as long as the settings leave them all rights."""
_ROLES: Mapping[str, tuple[Grant, ...]] = dict.fromkeys(sorted(ADMINS), _EVERYTHING)


class AccessRules:
    """The rules of one server. Raises GrantError for settings that cannot be read."""

    def __init__(self, settings: AccessSettings) -> None:
        self._everyone = (OWN_INBOX, *_parsed(settings.everyone))
        self._roles = {**_ROLES, **{name: _parsed(texts) for name, texts in settings.roles.items()}}
        self.anonymous = Grants(_parsed(settings.anonymous)) if settings.anonymous else None
        """The rights of clients without a token; None if they do not get in."""

    def identity(self, claims: Claims) -> Identity:
        """Whom a verified token names. A role that is not configured grants nothing. Raises TokenError."""
        grants = [*claims.grants(), *(grant for role in claims.roles for grant in self._roles.get(role, ()))]
        if claims.sub is not None:  # a token without a user, as in a share link, grants only what it says
            grants += self._everyone
        held = Grants(grants, claims.sub)
        return Identity(
            user=claims.sub,
            username=claims.username,
            organization_id=claims.organization_id,
            roles=claims.roles,
            grants=held,
            operator=bool(ADMINS & set(claims.roles)) and held.on(EVERY_CHANNEL) == EVERY_RIGHT,
            connections=claims.connections,
            expires=claims.exp,
            token_id=claims.jti,
            issued=claims.iat,
        )


def _parsed(texts: Iterable[str]) -> tuple[Grant, ...]:
    return tuple(parse_grant(text) for text in texts)
