"""Whoever waits is told what for: `sub` and `tasks` without a connection, `tail` of what does not exist, a question."""

import sys
from pathlib import Path

import pytest
import trio

from fanline.protocol.envelope import Envelope, MessageType
from tests.fanline.cli.pseudo_terminal import terminal
from tests.fanline.cli.watch.running import running_fanline
from tests.fanline.client.durable_peer import durable_peer
from tests.fanline.client.peer import Talk, running_peer

_STARTING_AGAIN = 1012


async def _closes_once(talk: Talk) -> None:
    """A server that ends the first connection, as at a restart."""
    await talk.welcome()
    command = await talk.receive()
    data = {"recovered": True, "count": 0}
    await talk.send(Envelope(MessageType.OK, id=command.id, channel=command.channel, offset=5, epoch="e", data=data))
    if talk.number:
        await talk.until_closed()
    else:
        await talk.close(_STARTING_AGAIN)


async def test_sub_says_that_the_connection_is_lost_and_back() -> None:
    with trio.fail_after(30):
        async with (
            running_peer(_closes_once) as url,
            running_fanline("sub", "news:all", "--url", url, terminate=True) as running,
        ):
            await running.wait_said("fanline: listening to news:all")
            await running.wait_said("the server closed the connection: server is restarting (1012); coming back\n")
            await running.wait_said("fanline: connected again\n")
    assert running.out == ""


async def test_the_live_table_of_tasks_says_that_the_connection_is_lost_and_back() -> None:
    with trio.fail_after(30):
        async with running_peer(_closes_once) as url, terminal("tasks", "--url", url) as shell:
            await shell.wait_shown("the server closed the connection")
            await shell.wait_shown("connected again")


@pytest.mark.parametrize("option", ["--lines=10", "--json"])
async def test_tail_of_a_task_that_does_not_exist_says_so(option: str) -> None:
    with trio.fail_after(30):
        async with (
            durable_peer() as peer,
            running_fanline("tail", "1", "--url", peer.url, option, terminate=True) as running,
        ):
            await running.wait_said("fanline: nothing was ever heard of task:1: waiting for it")


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ('task.ask("Deploy?", deadline=1)', "answer with `fanline tail task:deploy-7 --approve (or --reject)`"),
        ('task.ask("Name?", kind="input", deadline=1)', "answer with `fanline tail task:deploy-7 --input TEXT`"),
    ],
)
async def test_a_question_that_no_viewer_can_see_says_that_it_waits_and_how_to_answer(
    question: str, said: str, tmp_path: Path
) -> None:
    program = f"""
import fanline
try:
    with fanline.Task("task:deploy-7", nats="nats://127.0.0.1:1", linger=0) as task:
        {question}
except fanline.AskExpired:
    pass
"""
    with trio.fail_after(30):
        ended = await trio.run_process([sys.executable, "-P", "-c", program], capture_stderr=True)
    text = ended.stderr.decode()
    assert text.count("task deploy-7: waits for an answer to ") == 1
    assert "which no viewer can see: cannot connect to nats://127.0.0.1:1" in text
    assert said in text
