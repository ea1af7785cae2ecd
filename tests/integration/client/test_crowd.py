"""Many clients in one asyncio program, on a network that cuts their connections again and again."""

import json
import os
import subprocess
import sys
from functools import partial

import pytest
import trio

from tests.support.faults.fault_proxy import Fate, Weather, running_proxy
from tests.support.paths import ROOT
from tests.support.seeds import new_seed
from tests.support.servers.serve import running_serve

CLIENTS = 500
MESSAGES = 20
CHANNELS = 10
WEATHER = Weather(life=(3.0, 12.0), away=(0.2, 2.0), fates=(Fate.BLINK, Fate.STALL))
PROGRAM = """
import asyncio, fanline, json, sys

direct, proxied, clients, messages, channels = *sys.argv[1:3], *map(int, sys.argv[3:])
losses, subscribed = [], asyncio.Semaphore(0)

async def watch(number, entering):
    async with fanline.Client(proxied, notice=losses.append) as client:
        async with client.subscribe(f"task:{number % channels}", gaps=True) as items:
            subscribed.release()
            entering.release()
            return [item.data async for item in first(items)]

async def first(items):
    for _ in range(messages):
        yield await anext(items)

async def main():
    entering = asyncio.Semaphore(50)
    async with asyncio.TaskGroup() as group, fanline.Client(direct) as publisher:
        watching = []
        for number in range(clients):
            await entering.acquire()
            watching.append(group.create_task(watch(number, entering)))
        for _ in range(clients):
            await subscribed.acquire()
        print("all", flush=True)
        for number in range(messages):
            for channel in range(channels):
                await publisher.publish(f"task:{channel}", number)
            await asyncio.sleep(0.5)
    wrong = [task.result() for task in watching if task.result() != list(range(messages))]
    print(json.dumps({"wrong": wrong[:3], "losses": len([each for each in losses if each.endswith("coming back")])}))

asyncio.run(main())
"""


@pytest.mark.timeout(300)
async def test_500_asyncio_clients_on_a_bad_network_get_each_message_once_and_in_order() -> None:
    seed = new_seed()
    with trio.fail_after(280):
        async with running_serve() as serve, running_proxy(("127.0.0.1", serve.port), seed) as proxy:
            arguments = [serve.url, f"ws://127.0.0.1:{proxy.port}/ws", *map(str, (CLIENTS, MESSAGES, CHANNELS))]
            command = [sys.executable, "-P", "-c", PROGRAM, *arguments]
            environ = {**os.environ, "PYTHONPATH": str(ROOT)}
            async with trio.open_nursery() as nursery:  # which does not leave the program behind
                start = partial(trio.run_process, command, stdout=subprocess.PIPE, env=environ)
                program: trio.Process = await nursery.start(start)
                assert program.stdout is not None
                text = await program.stdout.receive_some()  # that all are subscribed
                proxy.weather = WEATHER
                proxy.cut_all()
                while chunk := await program.stdout.receive_some():
                    text += chunk
    report = json.loads(text.removeprefix(b"all\n"))
    assert report["wrong"] == []
    assert report["losses"] > CLIENTS  # each at least once, by cut_all
