"""A printed seed brings back the run that printed it."""

import random

import pytest
import trio

from tests.support.seeds import new_seed


async def race() -> list[int]:
    """The order in which thirty tasks run, each for some steps that it draws itself."""
    seed, order = new_seed(), list[int]()

    async def run(number: int) -> None:
        for _ in range(random.Random(f"{seed}/{number}").randrange(1, 9)):
            await trio.lowlevel.checkpoint()
            order.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(30):
            nursery.start_soon(run, number)
    return order


async def test_the_seed_that_was_printed_replays_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FANLINE_TEST_SEED", raising=False)
    order = await race()
    name, _, seed = capsys.readouterr().out.strip().partition("=")
    monkeypatch.setenv(name, seed)
    assert await race() == order


async def test_without_a_seed_in_the_environment_every_run_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FANLINE_TEST_SEED", raising=False)
    assert await race() != await race()
