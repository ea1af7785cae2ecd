"""The route table of a server: what its settings say of each path, put into the form in which handshakes need it."""

from collections.abc import Mapping
from typing import NamedTuple

from fanline.engine.access.identity import Identity
from fanline.engine.access.user_places import PlaceRule
from fanline.engine.routes import DEFAULTS, Overflow, Route
from fanline.protocol.auth.request_token import query_of
from fanline.protocol.auth.rights import Grants, parse_grant
from fanline.protocol.channels import is_channel
from fanline.protocol.compat.escapes import inbox_name
from fanline.protocol.websocket.handshake import Request
from fanline.protocol.websocket.routes import USER, RouteTable, Template, Visit, query_values


class ServedRoute(NamedTuple):
    """One route."""

    pattern: str
    options: Route
    idle: float
    """Seconds of silence after which a connection is closed."""
    anonymous: Grants | None
    """The rights of clients without a token; None: those of the whole server."""
    place: PlaceRule
    """How many connections a user may have, unless its token says otherwise."""
    joins: tuple[Template, ...]
    joins_always: bool
    """Whether something is joined that needs no values: else a client without values joins nothing."""
    wanted: frozenset[str]
    """Names of the query that its templates have."""
    visit: Visit
    """That of a client whose path and query have no values."""

    def place_rule(self, identity: Identity) -> PlaceRule:
        """How many connections the client's user may have besides what its token says, which counts those of all
        routes, and stands in place of the server's own number.
        """
        if identity.connections is None or self.place.where:
            return self.place
        return self.place._replace(most=None)

    def channels(self, visit: Visit, user: str | None, *, is_plain: bool) -> list[str]:
        """The channels that a client joins. MessageError(BAD_CHANNEL) for a name that is too long.

        Those of the user are for plain clients alone: a v1 client names the position from which it wants its inbox.
        """
        values = visit.values
        if is_plain and user is not None and is_channel(inbox_name(user)):
            values = {**values, USER: user}
        if not (values or self.joins_always):
            return []
        return [name for template in self.joins if (name := template.channel(values)) is not None]


class Routes:
    """The routes of one server. `idle`: seconds of silence, and `connections`: those of one user (0: any number), where
    a route does not say. `heartbeat`: seconds between two pings; a default route whose `idle` is not longer has that of
    the server. RouteError, GrantError for what cannot be used.
    """

    def __init__(self, declared: Mapping[str, Route], idle: float, heartbeat: float, connections: int) -> None:
        default = PlaceRule(connections or None)
        self._table = RouteTable(
            {
                pattern: _served(pattern, route, _idle(pattern, route, heartbeat) or idle, default)
                for pattern, route in {**DEFAULTS, **declared}.items()
                if route.enabled
            }
        )

    def find(self, request: Request) -> tuple[ServedRoute, Visit] | None:
        """The route of a request, and what is known of the visit. HttpError 400 for an ambiguous query."""
        found = self._table.find(request.path)
        if found is None:
            return None
        route, values = found
        if route.wanted and request.query:
            values |= query_values(query_of(request), route.wanted)
        return route, route.visit._replace(values=values) if values else route.visit


def _idle(pattern: str, route: Route, heartbeat: float) -> float:
    """Seconds of silence that a route says; 0 if it says none, or is a default one that would close live clients."""
    gives_way = route.idle <= heartbeat and route.idle == DEFAULTS.get(pattern, Route()).idle
    return 0.0 if gives_way else route.idle


def _served(pattern: str, route: Route, idle: float, default: PlaceRule) -> ServedRoute:
    joins = tuple(Template(text) for text in route.joins)
    replace = route.replace is Overflow.REPLACE_OLDEST
    return ServedRoute(
        pattern=pattern,
        options=route,
        idle=idle,
        anonymous=Grants([parse_grant(text) for text in route.anonymous]) if route.anonymous else None,
        place=default._replace(replace=replace)
        if route.per_user < 0
        else PlaceRule(route.per_user or None, replace, route.counted_as or pattern),
        joins=joins,
        joins_always=any(template.channel({}) is not None for template in joins),
        wanted=frozenset(name for template in joins for name in template.names if name.startswith("?")),
        visit=Visit(rooms=route.rooms, greeting=route.greeting),
    )
