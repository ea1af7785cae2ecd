"""Grants: what they allow, what they do not, and how they are written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanline.protocol.auth.rights import (
    EVERY_RIGHT,
    RIGHT_NAMES,
    Grant,
    GrantError,
    Grants,
    Right,
    make_grant,
    parse_grant,
    right_names,
    right_of_verb,
)
from fanline.protocol.compat.escapes import inbox_name

TOKENS = st.from_regex(r"[A-Za-z0-9_=@+~,:/\-]{1,8}", fullmatch=True)
CHANNELS = st.builds("{}:{}".format, st.sampled_from(("task", "user", "ta")), TOKENS)


@pytest.mark.parametrize(
    ("grant", "allowed", "refused"),
    [
        ("task:42:sub", ("task:42",), ("task:421", "task:4", "tasks:42", "task:*", "user:42")),
        ("task:*:sub", ("task:42", "task:a.b:c", "task:*"), ("tasks:42", "user:42")),
        ("task:a:*:sub", ("task:a:b",), ("task:a", "task:b", "task:*")),
        ("task:build-*:sub", ("task:build-1", "task:build-"), ("task:build", "task:bui", "task:*")),
        ("*:sub", ("task:42", "user:anna", "task:*"), ()),
        ("user:{user}:sub", ("user:anna",), ("user:ann", "user:anna2", "user:{user}", "user:*")),
        ("doc:of-{user}:sub", ("doc:of-anna",), ("doc:of-", "doc:anna")),
    ],
)
def test_a_pattern_means_exactly_these_channels(grant: str, allowed: tuple[str, ...], refused: tuple[str, ...]) -> None:
    grants = Grants([parse_grant(grant)], "anna")
    assert [channel for channel in allowed if Right.SUB not in grants.on(channel)] == []
    assert [channel for channel in refused if grants.on(channel)] == []


@pytest.mark.parametrize("user", ["a b", "ä", "*", "..", "anna~20b", "日本"])
def test_any_user_name_is_granted_its_own_inbox_and_no_other_ones(user: str) -> None:
    grants = Grants([parse_grant("user:{user}:sub")], user)
    assert grants.on(inbox_name(user)) is Right.SUB
    for other in ("anna b", "a", "anna"):  # the inbox of `anna b` is user:anna~20b
        assert grants.on(inbox_name(other)) is Right.NONE


@pytest.mark.parametrize("user", [None, "", "*", "an*", "a b", "a..b", "a>", "ä", "a\n", "x" * 300])
def test_a_user_name_that_makes_no_channel_name_is_granted_nothing_by_it(user: str | None) -> None:
    grants = Grants([parse_grant("user:{user}:sub")], user)
    assert grants.on(f"user:{user}") is Right.NONE
    assert grants.on("user:*") is Right.NONE
    assert grants.on("user:anna") is Right.NONE


def test_grants_add_up() -> None:
    grants = Grants(
        [parse_grant(text) for text in ("*:presence", "task:*:sub", "task:4*:history", "task:42:pub+cancel")]
    )
    assert grants.on("task:42") == Right.PRESENCE | Right.SUB | Right.HISTORY | Right.PUB | Right.CANCEL
    assert grants.on("task:5") == Right.PRESENCE | Right.SUB
    assert grants.on("doc:1") == Right.PRESENCE


@pytest.mark.parametrize("pattern", ["*", "task:*", "task:4*", "task:42"])
def test_two_grants_on_one_pattern_add_up(pattern: str) -> None:
    grants = Grants([Grant(pattern, Right.SUB), Grant(pattern, Right.PUB)])
    assert grants.on("task:42") == Right.SUB | Right.PUB


def test_rights_that_are_part_of_another_one_are_not_named_beside_it() -> None:
    assert right_names(Right.CALL | Right.SUB) == ["sub", "call"]
    assert right_names(Right.CANCEL | Right.ANSWER) == ["cancel", "answer"]


def test_without_grants_nothing_is_allowed() -> None:
    assert Grants().on("task:42") is Right.NONE


@pytest.mark.parametrize(
    ("verb", "rights", "allowed"),
    [
        ("cancel", Right.CANCEL, True),
        ("cancel", Right.ANSWER, False),
        ("approve", Right.ANSWER, True),
        ("reject", Right.ANSWER, True),
        ("input", Right.ANSWER, True),
        ("input", Right.CANCEL, False),
        ("pause", Right.CANCEL | Right.ANSWER, False),
        ("pause", Right.CALL, True),
        ("cancel", Right.CALL, True),
        ("status", Right.SUB, True),
        ("status", Right.CALL, False),
    ],
)
def test_a_verb_needs_its_right(verb: str, rights: Right, allowed: bool) -> None:
    needed = right_of_verb(verb)
    assert (needed in rights) is allowed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sub",
        ":sub",
        "task:42",
        "task:42:",
        "task:42:sub+",
        "task:42:read",
        "Task:1:sub",
        "task:a b:sub",
        "task::sub",
        "t*:sub",
        "*:*:sub",
        "task:**:sub",
        "task:*x:sub",
        "task:{user}*:sub",
        "{user}:1:sub",
        "task:{user}x:sub",
        "task:>:sub",
    ],
)
def test_what_is_no_grant_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(GrantError) as raised:
        parse_grant(text)
    assert len(str(raised.value)) > 20


@pytest.mark.parametrize("text", ["task:*", "task:42", "*"])
def test_a_grant_without_rights_is_answered_with_the_form_of_one(text: str) -> None:
    with pytest.raises(GrantError, match=r"is no grant: write PATTERN:RIGHTS, as in task:\*:sub\+call"):
        parse_grant(text)


@given(CHANNELS, st.sets(st.sampled_from(sorted(RIGHT_NAMES)), min_size=1))
def test_a_grant_that_is_written_reads_as_itself(pattern: str, names: set[str]) -> None:
    grant = make_grant(pattern, names)
    assert parse_grant(f"{pattern}:{'+'.join(right_names(grant.rights))}") == grant


@given(st.lists(st.tuples(CHANNELS, st.booleans()), max_size=6), CHANNELS)
def test_grants_are_what_their_patterns_say_one_by_one(drawn: list[tuple[str, bool]], channel: str) -> None:
    patterns = [f"{name}*" if star else name for name, star in drawn]
    expected = any(
        channel.startswith(pattern[:-1]) if pattern.endswith("*") else channel == pattern for pattern in patterns
    )
    grants = Grants([Grant(pattern, EVERY_RIGHT) for pattern in patterns])
    assert (grants.on(channel) == EVERY_RIGHT) is expected
