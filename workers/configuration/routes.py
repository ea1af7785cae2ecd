"""The `[routes."PATH"]` tables of fanline.toml: a key that is given replaces the default of the route."""

from collections.abc import Mapping

import msgspec

from fanline.engine.routes import DEFAULTS, Route, Serves, Speech
from fanline.protocol.auth.rights import GrantError, parse_grant
from fanline.protocol.channels import is_channel
from fanline.protocol.websocket.routes import RouteError, Template, check_distinct, names_of, parse_pattern
from fanline.workers.configuration.wording import read_value
from fanline.workers.errors import SettingsError

_OWN_PATHS = ("/healthz", "/readyz")


def read_routes(tables: object, source: str) -> dict[str, Route]:
    """Path -> route. Raises SettingsError naming the table and the key at fault."""
    if not isinstance(tables, Mapping):
        raise SettingsError(f'bad value for routes in {source}: expected tables such as [routes."/ws"]')
    routes = {path: _route(path, table, source) for path, table in tables.items()}
    try:
        check_distinct({**DEFAULTS, **routes})
    except RouteError as error:
        raise SettingsError(f"routes in {source}: {error}") from None
    return routes


def check_routes(routes: Mapping[str, Route], heartbeat: float) -> None:
    """Raises SettingsError for a route that would close live clients. The value of a default route gives way."""
    for path, route in routes.items():
        if 0 < route.idle <= heartbeat and route.idle != DEFAULTS.get(path, Route()).idle:
            raise SettingsError(
                f'[routes."{path}"]: idle ({route.idle:g}) must be longer than engine.heartbeat ({heartbeat:g}), or '
                "live clients are closed"
            )


def _route(path: str, table: object, source: str) -> Route:
    where = f'[routes."{path}"] in {source}'
    if not isinstance(table, Mapping):
        raise SettingsError(f"bad value for {where}: expected a table")
    given = {key: read_value(Route, key, value, where) for key, value in table.items()}
    route = msgspec.structs.replace(DEFAULTS.get(path, Route()), **given)
    try:
        _check(path, route)
    except (RouteError, GrantError) as error:
        raise SettingsError(f"{where}: {error}") from None
    return route


def _check(path: str, route: Route) -> None:
    """Raises RouteError, GrantError."""
    names = names_of(parse_pattern(path))
    if path in _OWN_PATHS:
        raise RouteError("the server itself answers at this path")
    for text in route.joins:
        Template(text).check(names)
    for text in route.anonymous:
        parse_grant(text)
    if not is_channel(f"{route.rooms}:x"):
        raise RouteError(f"rooms = {route.rooms!r} is no name of a namespace")
    if route.serves is Serves.CHANNELS:
        return
    if route.joins or route.anonymous:
        raise RouteError(f'a route that serves "{route.serves}" joins no channels, and everybody gets in')
    if route.dialect is not Speech.PLAIN:
        raise RouteError(f'a route that serves "{route.serves}" needs dialect = "plain"')
