"""What every call of the management API answers to those who may not make it, and while something is broken."""

import os
import signal
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import trio

from fanline.protocol.auth.api_keys import ApiRight
from fanline.protocol.auth.tokens import sign
from tests.integration.control.calls import EveryCall, every_call
from tests.integration.control.test_control_process import API, ask, control_pid, controlled, wait_answer
from tests.support.servers.serve import Serve, kill

SECRET = "s" * 48
CALLS = every_call()
DONE = frozenset((200, 201, 400, 404, 409))
"""Statuses of calls that were made: what they are about is not there, or has no presence."""
WITHOUT_NATS = dict.fromkeys((f"{API}/info", f"{API}/publish", "/metrics"), 200)
"""What is answered without NATS: what the server is, that no message of a batch was published, that no worker is up."""


@asynccontextmanager
async def owner_of(serve: Serve) -> AsyncIterator[httpx.AsyncClient]:
    """Calls on the control process's own socket, where no key is needed."""
    path = serve.state_directory / f"control-{serve.port}.sock"
    transport = httpx.AsyncHTTPTransport(uds=str(path))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=30) as client:
        yield client


async def make(client: httpx.AsyncClient, call: EveryCall, shown: str | None = None) -> httpx.Response:
    headers = {} if shown is None else {"Authorization": f"Bearer {shown}"}
    return await client.request(call.method, call.path, json=call.body, headers=headers)


async def make_all(client: httpx.AsyncClient) -> list[tuple[EveryCall, httpx.Response]]:
    """All at once."""
    answers = list[tuple[EveryCall, httpx.Response]]()

    async def one(call: EveryCall) -> None:
        answers.append((call, await make(client, call)))

    async with trio.open_nursery() as nursery:
        for call in CALLS:
            nursery.start_soon(one, call)
    return answers


def check_problem(call: EveryCall, answer: httpx.Response, status: int) -> None:
    """An answer that says what is wrong in the one shape of all errors."""
    said = answer.json()
    assert answer.status_code == status, f"{call.label}: {answer.status_code} {said}"
    assert {"error", "message"} <= set(said) <= {"error", "message", "where", "help"}, call.label


def check_sound(call: EveryCall, answer: httpx.Response) -> None:
    """An answer that was made, or that says that it cannot be made now. `health` has a shape of its own for that."""
    if answer.status_code == 503 and call.path != f"{API}/health":
        check_problem(call, answer, 503)
    else:
        assert answer.status_code in DONE | {503}, f"{call.label}: {answer.status_code} {answer.text}"


async def new_key(owner: httpx.AsyncClient, rights: Iterable[ApiRight]) -> str:
    answer = await owner.post(f"{API}/keys", json={"name": "test", "rights": list(rights)})
    return str(answer.json()["key"])


def token(**claims: Any) -> str:
    return sign({"sub": "anna", "exp": int(time.time()) + 600, **claims}, SECRET.encode())


async def test_every_call_is_refused_to_those_who_may_not_make_it_and_made_for_those_who_may() -> None:
    # S4-48, S4-49
    # about 15 requests of each call
    with trio.fail_after(170):
        env = {"FANLINE_AUTH": "token", "FANLINE_TOKENS_SECRET": SECRET}
        async with (
            controlled(**env) as serve,
            owner_of(serve) as owner,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{serve.port}", timeout=30) as client,
        ):
            assert len(CALLS) > 15
            known = await new_key(owner, [ApiRight.ADMIN])
            only = {right: await new_key(owner, [right]) for right in ApiRight}
            without = {right: await new_key(owner, _all_but(right)) for right in ApiRight}
            wrong = ("nonsense", f"{known[:-1]}{'A' if known[-1] != 'A' else 'B'}", "fl_0123456789ab_" + "x" * 43)
            for call in CALLS:
                for shown in (None, *wrong, token(exp=1), token(roles=["admin"])[:-2]):
                    check_problem(call, await make(client, call, shown), 401)
                for shown in (without[call.right], token(), token(channels={"*": ["sub", "pub", "call", "history"]})):
                    check_problem(call, await make(client, call, shown), 403)
                for shown in (only[call.right], known, token(roles=["admin"])):
                    answer = await make(client, call, shown)
                    assert answer.status_code in DONE, f"{call.label}: {answer.status_code} {answer.text}"


def _all_but(right: ApiRight) -> list[ApiRight]:
    """All rights that do not imply this one."""
    implying = {right, ApiRight.ADMIN} | ({ApiRight.READ} if right is ApiRight.METRICS else set())
    return [each for each in ApiRight if each not in implying] or [ApiRight.READ]


async def test_while_a_worker_does_not_answer_every_call_is_made_without_it_or_says_that_it_cannot_be() -> None:
    with trio.fail_after(90):
        async with controlled(FANLINE_HANG_TIMEOUT="60") as serve, owner_of(serve) as owner:
            os.kill(frozen := serve.worker_pids()[0], signal.SIGSTOP)
            try:
                answers = await make_all(owner)
            finally:
                os.kill(frozen, signal.SIGCONT)
            for call, answer in answers:
                check_sound(call, answer)
            made = {call.path: answer.json() for call, answer in answers if "/metrics" not in call.path}
            for path in ("/connections", "/online-users", "/channels", "/stats"):
                (missing,) = made[f"{API}{path}"]["workers"]["missing"]
                assert f"(pid {frozen})" in missing, path


async def test_while_a_worker_is_killed_and_comes_back_no_call_fails_in_any_other_way() -> None:
    with trio.fail_after(90):
        async with controlled() as serve, owner_of(serve) as owner:
            await kill(serve.worker_pids()[0])
            for call, answer in await make_all(owner):
                check_sound(call, answer)
            while (await wait_answer(serve))["workers"] != {"answered": 2, "missing": []}:
                await trio.sleep(0.1)
            for call, answer in await make_all(owner):
                assert answer.status_code in DONE, f"{call.label}: {answer.status_code} {answer.text}"


async def test_while_nats_is_away_every_call_says_so_in_time_and_is_made_again_afterwards() -> None:
    with trio.fail_after(170):
        async with controlled(FANLINE_HANG_TIMEOUT="60") as serve, owner_of(serve) as owner:
            os.kill(nats := serve.nats_pid(), signal.SIGSTOP)
            try:
                with trio.fail_after(30):
                    answers = await make_all(owner)
            finally:
                os.kill(nats, signal.SIGCONT)
            for call, answer in answers:
                check_sound(call, answer)
                no_webhooks = "/dead-letters" in call.path
                expected = WITHOUT_NATS.get(call.path, 400 if no_webhooks else 503)
                assert answer.status_code == expected, f"{call.label}: {answer.status_code} {answer.text}"
            await wait_answer(serve)
            while not all(answer.status_code in DONE for _, answer in await make_all(owner)):
                await trio.sleep(0.5)


async def test_while_the_control_process_restarts_every_call_is_made_or_is_told_to_come_back() -> None:
    with trio.fail_after(90):
        async with (
            controlled() as serve,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{serve.port}", timeout=30) as client,
        ):
            pid = control_pid(serve)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(kill, pid)
                answers = [await make_all(client) for _ in range(3)]
            for call, answer in (pair for each in answers for pair in each):
                check_sound(call, answer)
            await wait_answer(serve)
            assert (await ask(serve, "/info")).status_code == 200
            assert control_pid(serve) != pid
