"""Which route a path matches, what its names stand for, and what joins are made of them."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanline.protocol.channels import is_channel
from fanline.protocol.errors import HttpError, MessageError
from fanline.protocol.websocket.routes import (
    RouteError,
    RouteTable,
    Template,
    Visit,
    names_of,
    parse_pattern,
    query_values,
)

PATTERNS = ["/", "/ws", "/ws/{room}", "/ws/board", "/ws/{a}/x", "/ws/b/{c}", "/deep/{one}/{two}/{three}"]
TABLE = RouteTable({pattern: pattern for pattern in PATTERNS})


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/", ("/", {})),
        ("/ws", ("/ws", {})),
        ("/ws/board", ("/ws/board", {})),
        ("/ws/boards", ("/ws/{room}", {"room": "boards"})),
        ("/ws/b/x", ("/ws/b/{c}", {"c": "x"})),  # text before a name, from the left
        ("/ws/a/x", ("/ws/{a}/x", {"a": "a"})),
        ("/ws/a/y", None),
        ("/ws/", None),
        ("/ws//", None),
        ("/ws//x", None),
        ("//ws", None),
        ("", None),
        ("ws", None),
        ("/WS", None),
        ("/w%73", None),  # what is no name must be there as it is written
        ("/ws/%62oard", ("/ws/{room}", {"room": "board"})),
        ("/ws/a%2Fb", ("/ws/{room}", {"room": "a/b"})),
        ("/ws/%E4%BB%BB", ("/ws/{room}", {"room": "任"})),
        ("/ws/ä".encode().decode("latin-1"), ("/ws/{room}", {"room": "ä"})),
        ("/ws/%FF", None),  # not UTF-8
        ("/ws/%zz", ("/ws/{room}", {"room": "%zz"})),
        ("/ws/a+b", ("/ws/{room}", {"room": "a+b"})),
        ("/ws/..", ("/ws/{room}", {"room": ".."})),
        ("/deep/1/2/3", ("/deep/{one}/{two}/{three}", {"one": "1", "two": "2", "three": "3"})),
        ("/deep/1/2/3/4", None),
        ("http://host/ws", None),
    ],
)
def test_a_path_matches_the_route_with_text_in_place_of_names(
    path: str, found: tuple[str, dict[str, str]] | None
) -> None:
    assert TABLE.find(path) == found


@given(st.lists(st.text(min_size=1, max_size=20), min_size=3, max_size=3))
def test_a_name_takes_any_text_percent_encoded(values: list[str]) -> None:
    path = "/deep/" + "/".join(quote(value, safe="") for value in values)
    assert TABLE.find(path) == ("/deep/{one}/{two}/{three}", dict(zip(("one", "two", "three"), values, strict=True)))


@given(st.text(alphabet=[chr(code) for code in range(256)], max_size=60))
def test_any_path_is_found_or_not(path: str) -> None:
    found = TABLE.find(path)
    assert found is None or all(found[1].values())


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "ws",
        "/ws/",
        "//",
        "/ws//x",
        "/a b",
        "/ws/{}",
        "/ws/{A}",
        "/ws/{a",
        "/ws/x{a}",
        "/ws/*",
        "/ws?a",
        "/é",
        "/ws\n",
    ],
)
def test_what_is_no_path_of_a_route_is_refused(pattern: str) -> None:
    with pytest.raises(RouteError, match="is no path of a route"):
        parse_pattern(pattern)


def test_names_are_once_in_a_pattern_and_none_is_the_users() -> None:
    assert names_of(parse_pattern("/a/{b}/{c_1}")) == ["b", "c_1"]
    with pytest.raises(RouteError, match="has one name twice"):
        parse_pattern("/{a}/{a}")
    with pytest.raises(RouteError, match="client's own user"):
        parse_pattern("/{user}")
    with pytest.raises(RouteError, match="at most 200 characters"):
        parse_pattern("/" + "a" * 200)


@pytest.mark.parametrize("pair", [("/ws/{a}", "/ws/{b}"), ("/{a}/x/{b}", "/{b}/x/{a}")])
def test_two_routes_that_match_the_same_paths_are_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(RouteError) as caught:
        RouteTable(dict.fromkeys(pair, 1))
    assert str(caught.value) == f"{pair[0]} and {pair[1]} match the same paths"


# --- channel templates ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("task:{id}", "the path has no {id}; for a name of the query write {?id}"),
        ("task", "is no channel"),
        ("task:", "is no channel"),
        ("task:{task_id=*}", "only a name of the query may be missing; write {?task_id=*}"),
        ("task:{?task_id=*}.x", "is no channel"),
        ("task:x-{?task_id=*}", "is no channel"),
        ("task:{?task_id=7}", "is no channel"),
        ("user:*", "would join the inboxes of all users"),
        ("user:{?name=*}", "would join the inboxes of all users"),
        ("{task_id}", "is no channel"),
        ("task:{task_id", "is no channel"),
        ("Task:{task_id}", "is no channel"),
        ("task:a..{task_id}", "is no channel"),
    ],
)
def test_a_template_that_makes_no_channel_is_refused(text: str, reason: str) -> None:
    with pytest.raises(RouteError) as caught:
        Template(text).check(["task_id"])
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["task:{task_id}", "news:all", "project:{?project_id}", "user:{user}", "a:{task_id}.{?b}", "a:*", "a:{?b=*}"],
)
def test_a_template_may_name_the_path_the_query_and_the_user(text: str) -> None:
    Template(text).check(["task_id"])


def test_a_channel_is_made_of_values_and_there_is_none_without_them() -> None:
    values = {"task_id": "a b", "?project_id": "7", "user": "anna", "?empty": ""}
    made = {
        text: Template(text).channel(values)
        for text in ("task:{task_id}", "p:{?project_id}.{task_id}", "user:{user}", "x:{?other}", "x:{?empty}", "x:all")
    }
    assert list(made.values()) == ["task:a~20b", "p:7.a~20b", "user:anna", None, None, "x:all"]


@pytest.mark.parametrize(
    ("value", "joined"), [(None, "project:*"), ("", "project:*"), ("7", "project:7"), ("*", "project:~2A")]
)
def test_a_whole_namespace_may_stand_in_for_a_name_that_the_query_lacks(value: str | None, joined: str) -> None:
    values = {} if value is None else {"?project_id": value}
    assert Template("project:{?project_id=*}").channel(values) == joined
    assert Template("project:*").channel(values) == "project:*"


@given(st.text(min_size=1, max_size=20))
def test_a_value_never_leaves_the_channel_that_the_template_means(value: str) -> None:
    channel = Template("task:x-{id}").channel({"id": value})
    assert channel is not None
    assert channel.startswith("task:x-")
    assert is_channel(channel)


def test_a_channel_that_would_be_too_long_is_refused() -> None:
    with pytest.raises(MessageError, match="longer than 200 characters"):
        Template("task:{id}").channel({"id": "é" * 40})


def test_only_names_that_are_wanted_are_taken_from_a_query_and_each_once() -> None:
    wanted = {"?a", "?b"}
    assert query_values([("a", "1"), ("x", "2"), ("x", "3"), ("token", "t")], wanted) == {"?a": "1"}
    with pytest.raises(HttpError, match="the query has a twice") as caught:
        query_values([("a", "1"), ("a", "1")], wanted)
    assert caught.value.status == 400


def test_a_greeting_has_the_values_of_its_names() -> None:
    visit = Visit({"task_id": "{b}", "?p": "1"}, greeting="task {task_id} of {nothing}")
    assert visit.greeting_text == "task {b} of {nothing}"
    assert visit.path_values == {"task_id": "{b}"}
