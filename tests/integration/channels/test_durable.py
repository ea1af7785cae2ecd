"""Nothing lost, nothing repeated, nothing out of order: real processes, real NATS, injected faults.

Every test prints its seed; FANLINE_TEST_SEED=N replays its faults. HARD=1 runs the long form of tests that have one.
"""

import os
import random
import signal
from collections import Counter
from collections.abc import Sequence

import pytest
import trio

from tests.support.durable.publisher import AckedPublisher
from tests.support.durable.resuming_client import ResumingClient, running_clients
from tests.support.faults.fault_proxy import Weather, running_proxy
from tests.support.nats.client import NatsClient, connect_nats
from tests.support.nats.server import running_nats
from tests.support.raw_client import connect
from tests.support.seeds import new_seed
from tests.support.servers.serve import Serve, kill, running_serve, wait_until

HARD = os.environ.get("HARD") == "1"
FROZEN_SECONDS = 7.0
"""Longer than the engine waits for its store."""
CHANNEL, SUBJECT = "task:1", "fanline.pub.task.1"


def source(number: int) -> str:
    """The loopback address of one client."""
    return f"127.0.{1 + number // 250}.{1 + number % 250}"


async def publish_evenly(nats: NatsClient, first: int, count: int, rate: float) -> None:
    """Publish the numbers from `first` on at a steady rate, whatever happens to the subscribers."""
    begun = trio.current_time()
    for number in range(count):
        await nats.publish((SUBJECT, b"%d" % (first + number)))
        await trio.sleep_until(begun + number / rate)
    await nats.flush()


async def all_have(clients: Sequence[ResumingClient], last: object, seconds: float) -> float:
    """Wait until the newest message of every client is `last`; the seconds it took."""
    begun = trio.current_time()
    with trio.move_on_after(seconds) as patience:
        waiting = list(clients)
        while waiting := [client for client in waiting if not client.messages or client.messages[-1].data != last]:
            await trio.sleep(0.02)
    late = [(client.connections, client.messages[-1:]) for client in waiting]
    assert not patience.cancelled_caught, f"{len(late)} clients do not have {last}: {late[:5]}"
    return trio.current_time() - begun


def assert_perfect(clients: Sequence[ResumingClient], expected: Sequence[object]) -> None:
    for client in clients:
        assert client.faults == []
        assert client.gaps == []
        assert client.repeats == 0
        assert client.data == list(expected)
        assert all((answer.d or {"recovered": True})["recovered"] for answer in client.answers)


# --- bad networks ---------------------------------------------------------------------------------------------------


async def test_clients_whose_connections_keep_breaking_get_everything_once_and_in_order() -> None:
    seed, count = new_seed(), 1500 if HARD else 500
    with trio.fail_after(100):
        async with running_serve(workers=2) as serve, connect_nats(serve.engine_url) as nats:
            target = ("127.0.0.1", serve.port)
            async with running_proxy(target, seed, Weather()) as proxy:
                clients = [
                    ResumingClient("127.0.0.1", proxy.port, CHANNEL, {"o": 0}, source=source(number), seed=seed)
                    for number in range(300)
                ]
                async with running_clients(clients):
                    await wait_until(lambda: all(client.answers for client in clients))
                    await publish_evenly(nats, 0, count, 50)
                    proxy.weather = None
                    seconds = await all_have(clients, count - 1, 60)
    connections = sum(client.connections for client in clients)
    refusals = Counter(refusal["code"] for client in clients for refusal in client.refusals)
    print(f"{connections} connections, {dict(proxy.faults)}, {proxy.refused} refused, caught up in {seconds:.2f} s")
    print(f"joins that were refused: {dict(refusals)}")
    assert proxy.faults.total() > 300
    assert_perfect(clients, range(count))


# --- killed processes -----------------------------------------------------------------------------------------------


async def hurt(serve: Serve, victims: str, rng: random.Random) -> None:
    """Hurt the victims, and wait until every process is running again."""
    if victims == "frozen nats":
        os.kill(serve.nats_pid(), signal.SIGSTOP)
        await trio.sleep(FROZEN_SECONDS)
        os.kill(serve.nats_pid(), signal.SIGCONT)
    if victims in ("worker", "both"):
        await kill(rng.choice(serve.worker_pids()))
    if victims in ("nats", "both"):
        await kill(serve.nats_pid())
    await wait_until(serve.is_whole)


@pytest.mark.parametrize("victims", ["worker", "nats", "both", *(["frozen nats"] if HARD else [])])
async def test_what_was_acknowledged_arrives_exactly_once_although_processes_are_killed(victims: str) -> None:
    seed, kills = new_seed(), 6 if HARD else 2
    rng = random.Random(seed)
    with trio.fail_after(100):
        async with running_serve(workers=2) as serve:
            where = ("127.0.0.1", serve.port)
            clients = [ResumingClient(*where, CHANNEL, {"o": 0}, source=source(n), seed=seed) for n in range(60)]
            publishers = [AckedPublisher(f"p{n}", CHANNEL, 150 * kills, seed, gives_up=1 / 3) for n in range(4)]
            async with running_clients(clients):
                await wait_until(lambda: all(client.answers for client in clients))
                async with trio.open_nursery() as nursery:
                    for publisher in publishers:
                        nursery.start_soon(publisher.run, *where, 0.005)
                    for _ in range(kills):
                        await trio.sleep(rng.uniform(0.3, 0.8))
                        await hurt(serve, victims, rng)
                await AckedPublisher("last", CHANNEL, 1).run(*where)
                await all_have(clients, "last-0", 60)
            errors = serve.stderr_text()
    report(victims, clients, publishers)
    hurts = sum(len(publisher.refusals) + publisher.lost for publisher in publishers)
    assert hurts or any(client.connections > 1 for client in clients), "no client and no publisher noticed anything"
    assert_promises_kept(clients, publishers)
    assert "Traceback" not in errors, errors


def report(victims: str, clients: Sequence[ResumingClient], publishers: Sequence[AckedPublisher]) -> None:
    refused = Counter(refusal["code"] for publisher in publishers for refusal in publisher.refusals)
    lost = sum(publisher.lost for publisher in publishers)
    slowest = max(publisher.slowest for publisher in publishers)
    outage = max(publisher.longest_outage for publisher in publishers)
    back = sum(client.connections - 1 for client in clients)
    print(
        f"{victims} killed: publishers got {dict(refused)}, lost {lost} connections, and waited {slowest:.2f} s at "
        f"most for an answer and {outage:.2f} s for the next acknowledgement; subscribers came back {back} times"
    )


def assert_promises_kept(clients: Sequence[ResumingClient], publishers: Sequence[AckedPublisher]) -> None:
    acknowledged = {"last-0"}.union(*(publisher.acknowledged for publisher in publishers))
    given_up = {name for publisher in publishers for name in publisher.given_up}
    for client in clients:
        assert (client.faults, client.gaps, client.repeats) == ([], [], 0)
        counted = Counter(client.data)
        assert acknowledged - set(counted) == set()
        assert set(counted) <= acknowledged | given_up
        assert [name for name, count in counted.items() if count > 1] == []
        assert client.data == clients[0].data


async def test_a_publisher_is_told_of_an_outage_and_goes_on_after_it() -> None:
    with trio.fail_after(90):
        async with running_nats() as nats, running_serve(workers=1, extra_args=("--nats", nats.url)) as serve:
            where = ("127.0.0.1", serve.port)
            async with connect(*where) as client:
                assert (await client.ask(pub("before")))["t"] == "ok"
                nats.kill()
                await wait_until(lambda: "NATS connection lost" in serve.stderr_text())
                refused = await client.ask(pub("during"))
                joined = await client.ask({"t": "sub", "c": CHANNEL, "i": "s", "o": 0})
                killed = trio.current_time()
                await nats.start()
                await AckedPublisher("after", CHANNEL, 1).run(*where, 0.01)
                print(f"NATS is back: acknowledged after {trio.current_time() - killed:.2f} s, its start included")
                answer = await client.ask({"t": "sub", "c": CHANNEL, "i": "s", "o": 0})
                assert answer["d"] == {"recovered": True, "count": 2}
    assert (refused["t"], refused["d"]["code"]) == ("err", "unavailable")
    assert (joined["t"], joined["d"]["code"]) == ("err", "unavailable")


async def test_a_publish_that_is_repeated_on_another_connection_is_stored_once() -> None:
    with trio.fail_after(90):
        async with running_serve(workers=2) as serve:
            where = ("127.0.0.1", serve.port)
            answers = []
            for name in ("one", "one", "two", "one"):
                async with connect(*where) as client:
                    answers.append(await client.ask(pub(name)))
            async with connect(*where) as client:
                joined = await client.ask({"t": "sub", "c": CHANNEL, "i": "s", "o": 0})
    assert [(answer["t"], answer["o"]) for answer in answers] == [("ok", 1), ("ok", 1), ("ok", 2), ("ok", 1)]
    assert [answer["d"].get("duplicate", False) for answer in answers] == [False, True, False, True]
    ids = [answer["d"]["id"] for answer in answers]
    assert ids == [ids[0], ids[0], ids[2], ids[0]]
    assert joined["d"] == {"recovered": True, "count": 2}


def pub(name: str, data: object = 1) -> dict[str, object]:
    return {"t": "pub", "c": CHANNEL, "i": name, "d": data, "dd": f"{name}:{'-' * 16}"}


# --- joins under fire -----------------------------------------------------------------------------------------------


async def test_joins_at_random_moments_and_offsets_are_exact_while_a_thousand_messages_a_second_come() -> None:
    seed, count = new_seed(), 4500 if HARD else 2500
    rng = random.Random(seed)
    numbers = sorted(rng.sample(range(count), k=count * 9 // 10))  # the rest go to another channel: offsets have holes
    of_channel = {number + 1: number for number in numbers}
    with trio.fail_after(100):
        async with running_serve(workers=2) as serve, connect_nats(serve.engine_url) as nats:
            clients: list[ResumingClient] = []
            sent = Counter[str]()
            async with trio.open_nursery() as nursery:
                for number in range(200):
                    moment = rng.uniform(0, count / 1000)
                    nursery.start_soon(_join_later, serve, clients, sent, moment, rng.uniform(0, 0.9), source(number))
                begun = trio.current_time()
                for number in range(count):
                    subject = SUBJECT if number + 1 in of_channel else "fanline.pub.task.other"
                    await nats.publish((subject, b"%d" % number))
                    sent["messages"] += 1
                    await trio.sleep_until(begun + number / 1000)
                await nats.flush()
                await all_have(clients, numbers[-1], 60)
                nursery.cancel_scope.cancel()
    assert len(clients) == 200
    for client in clients:
        (answer,) = client.answers
        assert answer.d["recovered"] is True
        assert answer.o is not None
        assert client.begins_after is not None
        expected = [(offset, number) for offset, number in of_channel.items() if offset > client.begins_after]
        assert [(message.offset, message.data) for message in client.messages] == expected
        assert (client.faults, client.gaps, client.repeats) == ([], [], 0)
        history = [offset for offset, _ in expected if offset <= answer.o]
        assert answer.d["count"] == len(history)


async def _join_later(
    serve: Serve, clients: list[ResumingClient], sent: Counter[str], moment: float, share: float, address: str
) -> None:
    """Join after `moment` seconds, from the offset that was the newest when a share of the messages had been sent."""
    await trio.sleep(moment)
    offset = int(share * sent["messages"])  # not by the time: on a busy machine this may be a message to come
    client = ResumingClient("127.0.0.1", serve.port, CHANNEL, {"o": offset}, source=address)
    clients.append(client)
    await client.run()
