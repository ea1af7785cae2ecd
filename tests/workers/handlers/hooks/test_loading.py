"""What the application registers, and what of it is refused at the start, in one sentence."""

import asyncio
from typing import Any

import pytest

from fanline.hooks import HookError, Hooks
from fanline.protocol.hooks.events import EventNameError
from fanline.workers.handlers.functions import LoadError
from fanline.workers.handlers.hooks.loading import set_up
from tests.workers.handlers.hooks.test_desk import Nowhere


def test_setups_may_be_coroutine_functions_and_share_one_registry() -> None:
    async def first(hooks: Hooks) -> None:
        await asyncio.sleep(0)
        hooks.on("user_connected", print)

    def second(hooks: Hooks) -> None:
        hooks.on("user_connected", repr)
        hooks.on_message("pay", print)
        hooks.on_call("total", print)

    hooks = asyncio.run(set_up({"app:first": first, "app:second": second}, Nowhere()))
    assert (hooks.events, hooks.messages, hooks.calls) == (
        {"user_connected": [print, repr]},
        {"pay": print},
        {"total": print},
    )


def _exit(_: Hooks) -> None:
    raise SystemExit(3)


def _twice(hooks: Hooks) -> None:
    hooks.on_message("pay", print)
    hooks.on_message("pay", repr)


def _generator(hooks: Hooks) -> Any:
    hooks.on_message("pay", print)
    yield


async def _lifespan(hooks: Hooks) -> Any:
    hooks.on_message("pay", print)
    yield


@pytest.mark.parametrize(
    ("setup", "words"),
    [
        (lambda hooks: hooks.on("a b", print), "the hooks of app:setup: 'a b' is no name of an event"),
        (lambda hooks: hooks.on("audit", print), "'audit' is no name of an event"),
        (lambda hooks: hooks.on("x", 7), "what is registered for x is no function"),
        (
            lambda hooks: hooks.on_message("new_message", print),
            "the server itself takes messages of the type new_",
        ),
        (lambda hooks: hooks.on_message("sub", print), "the server itself takes messages of the type sub"),
        (lambda hooks: hooks.on_message("", print), "'' is no name for clients to use"),
        (lambda hooks: hooks.on_message("x" * 129, print), "is no name for clients to use"),
        (lambda hooks: hooks.on_call("a\nb", print), "is no name for clients to use"),
        (_twice, "two functions are to answer pay"),
        (_generator, "it has a yield, and so registers nothing"),
        (_lifespan, "it has a yield, and so registers nothing"),
        (_exit, "cannot be set up: SystemExit: 3"),
        (lambda hooks: 1 / 0, "cannot be set up: ZeroDivisionError: division by zero"),
    ],
)
def test_what_cannot_be_registered_is_one_sentence(setup: Any, words: str) -> None:
    with pytest.raises(LoadError, match=words.replace("(", r"\(")) as caught:
        asyncio.run(set_up({"app:setup": setup}, Nowhere()))
    assert "\n" not in str(caught.value)


def test_an_application_may_test_its_setup_without_a_server() -> None:
    hooks = Hooks(Nowhere())
    with pytest.raises(HookError):
        hooks.on_message("ping", print)
    with pytest.raises(EventNameError):
        hooks.on("", print)
