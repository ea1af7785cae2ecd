"""A fault of the client's own, which nobody expects, ends it, and its user sees that one exception."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import trio

import fanline
from tests.fanline.client.peer import Talk, running_peer

_STEPS = ("received", "tick")
"""What the server says, and what time brings."""


async def _welcome_twice(talk: Talk) -> None:
    await talk.welcome()
    await talk.receive()
    await talk.welcome()


def _break(*_: object) -> Any:
    raise ZeroDivisionError("a fault")


async def _use_until_fault(url: str, step: str) -> None:
    async with fanline.Client(url) as client:
        shell = client._shell
        setattr(shell.machine, step, _break)
        if step == "tick":
            shell.machine._life.due = shell.now()
            shell._keep_deadline()
        with suppress(fanline.ConnectionLost):
            await client.ping()


async def _under_trio(work: Callable[[], Any]) -> None:
    await work()


async def _under_asyncio(work: Callable[[], Any]) -> None:
    await trio.to_thread.run_sync(lambda: asyncio.run(work()), abandon_on_cancel=True)


@pytest.mark.parametrize("step", _STEPS)
@pytest.mark.parametrize("run", [_under_trio, _under_asyncio])
async def test_a_fault_is_raised_where_the_client_is_left_and_in_no_group(run: Callable[..., Any], step: str) -> None:
    with trio.fail_after(10):
        async with running_peer(_welcome_twice) as url:
            with pytest.raises(ZeroDivisionError):
                await run(lambda: _use_until_fault(url, step))
