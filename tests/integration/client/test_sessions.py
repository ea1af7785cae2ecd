"""`fanline.Client` comes back to a real server: by its session, with another token, to its inbox."""

import os
import signal
import time
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio

import fanline
from fanline.client.subscriptions.resumption import Resumption
from fanline.protocol.auth.tokens import sign
from fanline.protocol.envelope import Envelope
from fanline.protocol.serve_state import decode_state
from tests.support.client_worlds.fixture import world  # noqa: F401  # each test runs in all worlds
from tests.support.faults.fault_proxy import running_proxy
from tests.support.servers.serve import Serve, running_serve, wait_until

CHANNELS = [f"task:{number}" for number in range(20)]
Messages = fanline.Subscription[fanline.Message | fanline.Gap]


@pytest.fixture
def resumed(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What servers have answered to clients that resumed their session."""
    answers: list[bool] = []
    take = Resumption.take

    def record(self: Resumption, envelope: Envelope) -> Any:
        if isinstance(envelope.value, dict) and "resumed" in envelope.value:
            answers.append(envelope.value["resumed"])
        return take(self, envelope)

    monkeypatch.setattr(Resumption, "take", record)
    return answers


async def _take_round(messages: dict[str, Messages], number: int) -> None:
    """Each subscription gets the number, and nothing else before it."""
    for channel, subscription in messages.items():
        item = await anext(subscription)
        assert isinstance(item, fanline.Message), item
        assert (item.channel, item.data) == (channel, number)


async def test_a_client_whose_workers_are_killed_resumes_its_session_and_gets_every_message_once(
    resumed: list[bool],
) -> None:
    with trio.fail_after(120):
        async with (
            running_serve() as serve,
            fanline.Client(serve.url) as client,
            fanline.Client(serve.url) as publisher,
            AsyncExitStack() as stack,
        ):
            await publisher.publish("task:first", 0)  # by now it knows that `task` is durable
            messages = {}
            for channel in CHANNELS:
                messages[channel] = await stack.enter_async_context(client.subscribe(channel, gaps=True))
            rounds = 0
            while True not in resumed:  # a session is stored soon after it has changed, and nothing says when
                killed = serve.worker_pids()
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)
                for channel in CHANNELS:
                    await publisher.publish(channel, rounds)
                await _take_round(messages, rounds)
                rounds += 1
                await wait_until(lambda: serve.is_whole() and not {*killed} & {*serve.worker_pids()}, 60)  # noqa: B023
            for channel in CHANNELS:
                await publisher.publish(channel, rounds)
            await _take_round(messages, rounds)


async def test_what_was_left_and_entered_around_a_loss_is_so_afterwards(resumed: list[bool]) -> None:
    with trio.fail_after(60):
        async with (
            running_serve(workers=1) as serve,
            running_proxy(("127.0.0.1", serve.port), seed=0) as proxy,
            fanline.Client(f"ws://127.0.0.1:{proxy.port}/ws") as client,
            fanline.Client(serve.url) as publisher,
        ):
            async with client.subscribe("task:stays", gaps=True) as stays:
                number = 0
                while True not in resumed:
                    async with client.subscribe("task:left"):
                        await client.ping()
                    async with client.subscribe(f"task:{number}", gaps=True) as entered:
                        proxy.cut_all()
                        for channel in ("task:left", "task:stays", f"task:{number}"):
                            await publisher.publish(channel, number)
                        await _take_round({"task:stays": stays, f"task:{number}": entered}, number)
                    number += 1


async def test_after_a_restart_of_the_server_the_client_goes_on_where_it_was() -> None:
    with trio.fail_after(120):
        async with running_serve(workers=1) as serve, fanline.Client(serve.url) as client:
            async with client.subscribe("task:1", gaps=True) as messages, client.subscribe("news:all") as news:
                await client.publish("task:1", 0)
                await _take_round({"task:1": messages}, 0)
                os.kill(serve.pid, signal.SIGTERM)
                await serve.start_again()
                await client.publish("task:1", 1)
                await _take_round({"task:1": messages}, 1)
                await client.ping()
                await client.publish("news:all", "again")
                assert (await anext(news)).data == "again"


def _token(serve: Serve, seconds: float, *, user: str = "ann") -> str:
    state = decode_state((serve.state_directory / f"serve-{serve.port}.json").read_bytes())
    claims = {"sub": user, "exp": time.time() + seconds, "fanline": {"roles": ["admin"]}}
    return sign(claims | {"roles": ["admin"]}, state.token_secret.encode())


async def test_a_token_that_ends_is_renewed_in_place_and_one_that_was_not_costs_no_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked = 0
    lasts = [3.0, None, 3600.0]  # seconds; None: no token can be made

    def make() -> str:
        nonlocal asked
        asked += 1
        seconds = lasts[min(asked, len(lasts)) - 1]
        if seconds is None:
            raise OSError("no network")
        return _token(serve, seconds)

    with trio.fail_after(90):
        async with running_serve(1, ("--auth", "token"), env={"FANLINE_TOKENS_GRACE": "2"}) as serve:
            told: list[str] = []
            async with (
                fanline.Client(serve.url, token=_token(serve, 3600)) as publisher,
                fanline.Client(serve.url, token=make, notice=told.append) as client,
                client.subscribe("task:1", gaps=True) as messages,
            ):
                assert client.user == "ann"
                number = 0
                while "connected again" not in told:  # the first token has ended, and its grace
                    await publisher.publish("task:1", number)
                    await _take_round({"task:1": messages}, number)
                    number += 1
                await publisher.publish("task:1", number)
                await _take_round({"task:1": messages}, number)
    assert asked == 3
    assert "no new token to show: OSError('no network')" in caplog.text
    assert "4401" in told[0]


async def test_an_inbox_begins_with_what_no_device_has_acknowledged() -> None:
    with trio.fail_after(60):
        async with running_serve(1, ("--auth", "token")) as serve:
            mine = _token(serve, 3600)
            async with fanline.Client(serve.url, token=_token(serve, 3600, user="bob")) as sender:
                for number in range(3):
                    await sender.publish("user:ann", number)
            async with fanline.Client(serve.url, token=mine) as client, client.inbox() as messages:
                taken = [await anext(messages) for _ in range(3)]
                assert [message.data for message in taken] == [0, 1, 2]
                await client.ack(taken[1])
            async with fanline.Client(serve.url, token=mine, codec="cbor") as client, client.inbox("ann") as messages:
                assert (await anext(messages)).data == 2
        async with running_serve(1) as serve, fanline.Client(serve.url) as client:
            with pytest.raises(ValueError, match="whose inbox"):
                client.inbox()
            await client.publish("user:ann", "hello")
            async with client.inbox("ann") as messages:
                assert (await anext(messages)).data == "hello"
