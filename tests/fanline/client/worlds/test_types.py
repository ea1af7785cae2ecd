"""What a type checker sees: `async with` gives coroutines, `with` gives plain results. mypy checks this module, too."""

import ast
import inspect
from typing import assert_type

import pytest

import fanline


async def in_a_loop(client: fanline.Client) -> None:
    async with client as entered:
        assert_type(entered, fanline.Client)
        assert_type(await entered.publish("news:a", 1), fanline.Published)
        assert_type(await entered.history("news:a"), fanline.PastMessages)
        async with entered.subscribe("news:a") as messages, entered.task("1") as task:
            assert_type(await anext(messages), fanline.Message)
            assert_type(await anext(task), fanline.TaskUpdate)
        async with entered.subscribe("news:a", gaps=True) as items:
            assert_type(await anext(items), fanline.Message | fanline.Gap)
        async with entered.watch_presence("room:a") as room:
            assert_type(await anext(room), fanline.PresenceNotice)


def plainly(client: fanline.Client) -> None:
    with client as entered:
        assert_type(entered, fanline.PlainClient)
        assert_type(entered.publish("news:a", 1), fanline.Published)
        assert_type(entered.history("news:a"), fanline.PastMessages)
        with entered.subscribe("news:a") as messages, entered.task("1") as task:
            assert_type(next(messages), fanline.Message)
            assert_type(next(task), fanline.TaskUpdate)
        with entered.subscribe("news:a", gaps=True) as items:
            assert_type(items.receive(1), fanline.Message | fanline.Gap)
        with entered.watch_presence("room:a") as room:
            assert_type(next(room), fanline.PresenceNotice)


PAIRS = [
    (fanline.Client, fanline.PlainClient),
    (fanline.Subscription, fanline.PlainSubscription),
    (fanline.TaskView, fanline.PlainTaskView),
    (fanline.PresenceView, fanline.PlainPresenceView),
]


@pytest.mark.parametrize(("async_", "plain"), PAIRS)
def test_both_forms_have_the_same_names_and_arguments(async_: type, plain: type) -> None:
    names = {name for name in dir(async_) if not name.startswith("_")}
    assert {name for name in dir(plain) if not name.startswith("_")} - names <= {"receive"}
    assert names <= {name for name in dir(plain) if not name.startswith("_")}
    for name in names:
        function, other = getattr(async_, name), getattr(plain, name)
        if inspect.isfunction(function):
            theirs = {each: value for each, value in _arguments(other).items() if each != "timeout"}
            assert theirs == _arguments(function), name
            assert inspect.getdoc(other), name


def _arguments(function: object) -> dict[str, str]:
    assert callable(function)
    parameters = inspect.signature(function).parameters.values()
    return {each.name: f"{each.kind} {each.default} {_text(each.annotation)}" for each in parameters}


def _text(annotation: object) -> str:
    return ast.unparse(ast.parse(annotation)) if isinstance(annotation, str) else repr(annotation)
