"""What is one message and what are two: real workers and a real NATS server, whose connections are cut."""

import random
from typing import Any
from uuid import uuid4

import trio

import fanline
from tests.support.faults.fault_proxy import running_proxy
from tests.support.nats.client import connect_nats
from tests.support.raw_client import RawClient, connect
from tests.support.seeds import new_seed
from tests.support.servers.serve import Serve, running_serve

CHANNEL, SUBJECT = "doc:1", "fanline.pub.doc.1"


async def stored(serve: Serve, last: Any) -> list[fanline.Message]:
    """Everything that is stored in the channel, up to the message whose data is `last`, which is published now."""
    async with fanline.Client(serve.url) as client, client.subscribe(CHANNEL, start=True) as messages:
        await client.publish(CHANNEL, last)
        found = list[fanline.Message]()
        async for message in messages:
            if message.data == last:
                return found
            found.append(message)
    raise AssertionError


async def publish_counting(serve: Serve, name: str, ids: list[str]) -> None:
    """As a simple client does that counts its requests from 1."""
    async with connect("127.0.0.1", serve.port) as client:
        for number in range(1, 101):
            await client.say({"v": 1, "t": "pub", "c": CHANNEL, "i": str(number), "d": [name, number]})
            ids.append(await answered(client))


async def answered(client: RawClient) -> str:
    answer = await client.json()
    assert (answer["t"], answer["d"].keys()) == ("ok", {"id"}), answer
    return str(answer["d"]["id"])


async def test_clients_that_count_their_requests_from_1_lose_nothing_to_each_other() -> None:
    names, ids = ["ann", "bob", "cid"], list[str]()
    with trio.fail_after(90):
        async with running_serve(workers=2) as serve:
            async with trio.open_nursery() as nursery:
                for name in names:
                    nursery.start_soon(publish_counting, serve, name, ids)
            found = await stored(serve, "end")
    assert sorted(message.data for message in found) == [[name, n] for name in names for n in range(1, 101)]
    assert sorted(message.id or "" for message in found) == sorted(ids)
    assert len(set(ids)) == 300


async def test_what_is_sent_again_after_a_cut_is_stored_once_and_has_the_id_that_is_answered() -> None:
    rng = random.Random(new_seed())
    with trio.fail_after(90):
        async with (
            running_serve(workers=2) as serve,
            running_proxy(("127.0.0.1", serve.port), seed=0) as proxy,
            fanline.Client(f"ws://127.0.0.1:{proxy.port}/ws") as client,
        ):
            await client.publish(CHANNEL, 0)  # by now it knows that `doc` is durable
            answers = dict[int, fanline.Published]()

            async def publish(number: int) -> None:
                answers[number] = await client.publish(CHANNEL, number)

            for burst in range(1, 161, 40):
                async with trio.open_nursery() as nursery:
                    for number in range(burst, burst + 40):
                        nursery.start_soon(publish, number)
                    await trio.sleep(rng.uniform(0, 0.02))
                    proxy.cut_all()
            found = (await stored(serve, "end"))[1:]
    print(f"{sum(answer.duplicate for answer in answers.values())} of {len(answers)} were sent again and stored before")
    assert {message.data: (message.id, message.offset) for message in found} == {
        number: (answer.id, answer.offset) for number, answer in answers.items()
    }
    assert len(found) == len(answers)


async def test_a_producer_on_nats_and_a_client_with_the_same_id_publish_two_messages() -> None:
    once = str(uuid4())
    header = {"Nats-Msg-Id": f"/{CHANNEL}/{once}"}
    with trio.fail_after(90):
        async with (
            running_serve(workers=1) as serve,
            connect_nats(serve.engine_url) as nats,
            fanline.Client(serve.url) as client,
        ):
            assert not (await client.publish(CHANNEL, "client", deduplication_id=once)).duplicate
            for repeat in (False, True):
                assert (await nats.ask(SUBJECT, b'"producer"', header)).get("duplicate", False) is repeat
                assert (await client.publish(CHANNEL, "again", deduplication_id=once)).duplicate
            found = await stored(serve, "end")
    assert [message.data for message in found] == ["client", "producer"]
