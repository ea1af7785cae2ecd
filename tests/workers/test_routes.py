"""The `[routes]` tables of the settings: what they change, and what is refused, with its reason."""

import pytest

from fanline.engine.access.routes import Routes
from fanline.engine.routes import DEFAULTS, Overflow, Route
from fanline.protocol.websocket.handshake import Request
from fanline.workers.configuration.loading import load_settings
from fanline.workers.errors import SettingsError

HOME = {"HOME": "/home/ada"}


def routes(toml: str) -> dict[str, Route]:
    return load_settings({}, HOME, ("some.toml", toml)).engine.routes


def refused(toml: str) -> str:
    with pytest.raises(SettingsError) as caught:
        routes(toml)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_default_routes_pass_their_own_check() -> None:
    tables = "".join(f'[routes."{path}"]\nenabled = true\n' for path in DEFAULTS)
    assert routes(tables) == DEFAULTS


def test_a_table_changes_the_keys_of_a_default_route_and_keeps_the_others() -> None:
    found = routes('[routes."/ws/chat"]\nper_user = 2\nreplace = "replace_oldest"')["/ws/chat"]
    assert (found.per_user, found.replace, found.rooms) == (2, Overflow.REPLACE_OLDEST, "session")


def test_any_other_path_is_a_new_route() -> None:
    found = routes('[routes."/live/{match}"]\njoins = ["match:{match}"]\nanonymous = ["match:*:sub"]')
    assert found == {"/live/{match}": Route(joins=("match:{match}",), anonymous=("match:*:sub",))}


@pytest.mark.parametrize(
    ("toml", "reason"),
    [
        ("routes = 1", 'bad value for routes in some.toml: expected tables such as [routes."/ws"]'),
        ("[routes]\n'/ws' = 1", 'bad value for [routes."/ws"] in some.toml: expected a table'),
        (
            '[routes."/ws"]\nper_usr = 1',
            'unknown setting per_usr in [routes."/ws"] in some.toml; did you mean per_user?',
        ),
        (
            '[routes."/ws"]\nper_user = "5"',
            "bad value for per_user in [routes.\"/ws\"] in some.toml ('5'): expected a whole",
        ),
        ('[routes."/ws"]\nreplace = "newest"', 'expected "reject" or "replace_oldest"'),
        ('[routes."/ws"]\njoins = "user:{user}"', "expected a list of channels like task:{task_id} or user:{user}"),
        ('[routes."ws"]', "[routes.\"ws\"] in some.toml: 'ws' is no path of a route"),
        ('[routes."/a/{b}"]\njoins = ["x:{c}"]', "x:{c}: the path has no {c}; for a name of the query write {?c}"),
        ('[routes."/a"]\njoins = ["project:a*"]', "'project:a*' is no channel"),
        ('[routes."/ws/review/{id}"]', "/ws/review/{task_id} and /ws/review/{id} match the same paths"),
        ('[routes."/a/{b}"]\n[routes."/a/{c}"]', "/a/{b} and /a/{c} match the same paths"),
        ('[routes."/healthz"]', "the server itself answers at this path"),
        ('[routes."/ws"]\nanonymous = ["task:*:fly"]', "'fly' on 'task:*' is no right"),
        ('[routes."/ws"]\nrooms = "Rooms"', "rooms = 'Rooms' is no name of a namespace"),
        ('[routes."/ws/health"]\njoins = ["a:b"]', 'a route that serves "health" joins no channels'),
        ('[routes."/ping"]\nserves = "echo"', 'a route that serves "echo" needs dialect = "plain"'),
        (
            '[engine]\nheartbeat = 70\n[routes."/ws/chat"]\nidle = 65',
            '[routes."/ws/chat"]: idle (65) must be longer than engine.heartbeat (70)',
        ),
    ],
)
def test_a_mistake_is_named_with_its_table(toml: str, reason: str) -> None:
    assert reason in refused(toml)


def test_the_silence_of_a_default_route_gives_way_to_a_slow_heartbeat() -> None:
    assert DEFAULTS["/ws/chat"].idle == 60
    for heartbeat, expected in ((59.0, 60.0), (60.0, 90.0)):
        found = Routes({}, 90.0, heartbeat, 0).find(Request("GET", "/ws/chat", "", "1.1", {}, b""))
        assert found is not None
        assert found[0].idle == expected
    assert not routes("[engine]\nheartbeat = 70")
