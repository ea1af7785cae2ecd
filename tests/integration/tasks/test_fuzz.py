"""Random nonsense from producers and viewers of tasks: nothing breaks, and every command gets one answer.

It prints its seed; FANLINE_TEST_SEED=N repeats what each of them says.
"""

import itertools
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import cbor2
import trio

from fanline.protocol.envelope import KEYS, decode_json
from fanline.protocol.errors import MessageError
from fanline.protocol.tasks.events import TaskData, TaskEvent
from tests.support.nats.client import NatsClient, connect_nats
from tests.support.raw_client import RawClient
from tests.support.seeds import new_seed
from tests.support.servers.serve import Serve, wait_until
from tests.support.tasks.bystanders import bystanders
from tests.support.tasks.on_worker import connect_to
from tests.support.tasks.producer import NatsProducer

FUZZ_SECONDS = 8.0
_TASKS = ["task:f1", "task:f2", "task:f3"]
_NAMES = [*map(str, TaskEvent), "", "note", "task_", "x" * 128]
_KEYS = [*TaskData.__struct_fields__, "other", ""]
_VERBS = ["cancel", "input", "approve", "reject", "status", "custom", "", "task_input", "x" * 128]
_CHANNELS = [
    *_TASKS,
    "task:",
    "task",
    "tasks:running",
    "user:1",
    "task:none",
    "task:a.b",
    "task:a b",
    "task:>",
    "\0",
    "",
]


def odd(chance: random.Random, depth: int = 3) -> Any:
    """Any JSON value, strange ones more often than usual ones."""
    plain = [None, True, False, 0, 1, -1, 7, 101, 2**31, 2**63, 2**64, 10**40, 0.5, -0.0, 1e308, math.nan, -math.inf]
    texts = ["", "a", "f1", "ann", "stderr", "x" * 300, "\0", "\u00e9\u4e2d", "1", "q1", "q2", "\ud800"]
    kind = chance.randrange(8)
    if kind == 0 and depth:
        return [odd(chance, depth - 1) for _ in range(chance.randrange(4))]
    if kind == 1 and depth:
        return odd_map(chance, depth - 1)
    if kind == 2 and chance.random() < 0.02:
        return _nested(chance.choice([60, 70, 5000]))
    return chance.choice(plain if kind < 6 else texts)


def odd_map(chance: random.Random, depth: int = 3) -> dict[str, Any]:
    return {chance.choice(_KEYS): odd(chance, depth) for _ in range(chance.randrange(5))}


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(min(depth, 500)):
        value = [value]
    return value


def odd_payload(chance: random.Random) -> bytes:
    """What a producer might send: mostly an event with odd data, sometimes a broken one, sometimes noise."""
    event = {"v": 1, "e": chance.choice(_NAMES), "d": chance.choice([odd_map, odd])(chance)}
    if chance.random() < 0.1:
        event[chance.choice("v t c o p ep i e d u ts k pr ttl".split())] = odd(chance)
    payload = odd_cbor(event) if chance.random() < 0.3 else json.dumps(event).encode()
    kind = chance.random()
    if kind < 0.1:
        return payload[: chance.randrange(len(payload) + 1)]
    if kind < 0.2:
        place = chance.randrange(len(payload))
        return payload[:place] + chance.randbytes(1) + payload[place + 1 :]
    return chance.randbytes(chance.randrange(64)) if kind < 0.25 else payload


def odd_answers(chance: random.Random) -> Callable[[Mapping[str, Any]], bytes]:
    """What a producer answers calls with."""
    return lambda call: odd_payload(chance)


def odd_cbor(event: Mapping[str, Any]) -> bytes:
    numbers = dict(KEYS.values())
    try:
        return cbor2.dumps({numbers.get(key, key): value for key, value in event.items()})
    except (cbor2.CBOREncodeError, UnicodeEncodeError):  # a lone surrogate
        return b"\xa0"


async def _odd_producer(nats: NatsClient, chance: random.Random) -> None:
    """Noise on every subject of tasks, about 2,000 messages a second; again and again a task begins a new attempt."""
    for attempt in itertools.count(200):
        task = chance.choice(_TASKS).replace(":", ".")
        begin = {"v": 1, "e": "task_confirmation_required", "d": {"attempt": attempt, "ask": "q1"}}
        batch = [(f"fanline.pub.{task}", json.dumps(begin).encode())]
        for _ in range(20):
            task = chance.choice(_TASKS).replace(":", ".")
            kind = chance.choice(["pub", "pub", "pub", "beat", "pub"])
            subject = f"fanline.{kind}.{task if chance.random() < 0.95 else chance.choice(['task', 'x.y', 'task.a.b'])}"
            batch.append((subject, odd_payload(chance)))
        await nats.publish(*batch)
        await trio.sleep(0.01)


class OddViewer:
    """Sends odd commands, each with its own id, and counts the answers to each."""

    def __init__(self, chance: random.Random) -> None:
        self.answers: dict[str, int] = {}
        """Id of a readable command -> how many answers it got."""
        self.unreadable = 0
        """How many commands cannot be read; the answer to one has no id."""
        self.refused = 0
        """How many answers had no id."""
        self._chance = chance

    def command(self) -> bytes:
        chance, name = self._chance, f"n{len(self.answers)}"
        kind = chance.choice(["call", "call", "call", "sub", "unsub", "pub", "ack", "history", "?"])
        fields = {"v": 1, "t": kind, "c": chance.choice(_CHANNELS), "i": name, "e": chance.choice(_VERBS)}
        data = chance.choice([odd_map, odd])(chance)
        if kind == "call" and chance.random() < 0.5:
            data = {"ask": "q1", "value": odd(chance), "by": chance.choice(["ann", "bob", None])}
        if kind == "sub" and chance.random() < 0.7:
            data = {"snapshot": True, "lines": chance.choice([0, 5, 1000, 1001, -1, "x", None])}
        if chance.random() < 0.2:
            fields |= {"o": chance.choice([0, 1, 50, 2**62]), "ep": chance.choice(["", "x"])}
        payload = json.dumps(fields | {"d": data}).encode()
        try:
            decode_json(payload)
            self.answers[name] = 0
        except MessageError:
            self.unreadable += 1
        return payload

    async def run(self, client: RawClient) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, client)
            with trio.move_on_after(FUZZ_SECONDS):
                while True:
                    await client.say(self.command())
                    await trio.sleep(self._chance.uniform(0, 0.02))
            await wait_until(lambda: all(self.answers.values()))
            nursery.cancel_scope.deadline = trio.current_time() + 0.5  # by then a second answer would have come

    async def _read(self, client: RawClient) -> None:
        while True:
            frame = await client.json()
            if frame["t"] in ("ok", "err"):
                if "i" in frame:
                    self.answers[frame["i"]] += 1
                else:
                    self.refused += 1


async def test_whatever_is_sent_nothing_breaks_and_every_command_gets_one_answer() -> None:
    seed = new_seed()
    async with bystanders() as people, trio.open_nursery() as nursery:
        serve = people.serve
        answering = [NatsProducer(serve, channel) for channel in _TASKS[:2]]
        for number, producer in enumerate(answering):
            producer.answer = odd_answers(random.Random(f"{seed}/producer {number}"))
            await nursery.start(producer.run)
        odd_viewers = [OddViewer(random.Random(f"{seed}/viewer {number}")) for number in range(4)]
        async with connect_nats(serve.engine_url) as nats, trio.open_nursery() as talking:
            talking.start_soon(_odd_producer, nats, random.Random(f"{seed}/nats"))
            async with trio.open_nursery() as asking:
                for number, viewer in enumerate(odd_viewers):
                    asking.start_soon(_be_odd, serve, viewer, serve.worker_pids()[number % 2])
            talking.cancel_scope.cancel()
        told = [await _status(serve, pid) for pid in serve.worker_pids()]
        assert told[0] == told[1]
        nursery.cancel_scope.cancel()
    counts = Counter(count for viewer in odd_viewers for count in viewer.answers.values())
    print(f"{counts.total()} commands, {sum(len(producer.calls) for producer in answering)} reached a producer")
    assert set(counts) == {1}
    assert [viewer.refused for viewer in odd_viewers] == [viewer.unreadable for viewer in odd_viewers]
    assert all(producer.calls for producer in answering)


async def _be_odd(serve: Serve, viewer: OddViewer, worker: int) -> None:
    async with connect_to(serve, worker) as client:
        await viewer.run(client)


async def _status(serve: Serve, worker: int) -> list[Any]:
    """The state of each fuzzed task, according to one worker."""
    async with connect_to(serve, worker) as client:
        return [
            (await client.ask({"v": 1, "t": "call", "c": channel, "i": "s", "e": "status"}))["d"] for channel in _TASKS
        ]
