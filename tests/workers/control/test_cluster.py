"""Asking the workers of a cluster: who has not answered is named."""

import msgspec
import trio
from trio.testing import MockClock

from fanline.engine.bus.memory import MemoryBroker, MemoryBus
from fanline.engine.cluster.members import Member, Members
from fanline.engine.counters import Counters
from fanline.engine.management.statistics import WorkerStatistics
from fanline.engine.presence.online import OnlineUsers
from fanline.protocol.management.questions import SUBJECT, Answered, ConnectionsQuestion
from fanline.protocol.nats.names import Bucket
from fanline.workers.control.cluster import Cluster, Gathered, missing_workers

NOBODY = OnlineUsers(connections=0, anonymous=0, digests=b"", complete=True)


async def test_a_worker_that_is_given_up_while_it_is_asked_is_named_as_an_operator_knows_it(
    autojump_clock: MockClock,
) -> None:
    bus = MemoryBus(MemoryBroker())
    member = Member(host="h", pid=7, name="worker-1", server="h/6")
    answer = msgspec.json.encode(Answered(worker="live", body=msgspec.Raw(b"3")))
    await bus.answer(SUBJECT, lambda _, respond: respond(answer))
    members = Members(bus, "control")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(members.watch)
        while members.others.get("dead") != member:
            await bus.kv_put(Bucket.WORKERS, "live", msgspec.json.encode(member), 600)
            await bus.kv_put(Bucket.WORKERS, "dead", msgspec.json.encode(member), 600)
            await trio.sleep(0.5)
        told = await Cluster(bus, members, seconds=60).gather(ConnectionsQuestion(), int)
        assert "dead" not in members.others
        assert told.missing == ["worker-1 of h/6 (pid 7)"]
        nursery.cancel_scope.cancel()


def test_missing_is_every_slot_without_an_answer_and_no_predecessor_of_a_worker_that_has_answered() -> None:
    answered = WorkerStatistics("worker-0", "h", 9, "h/6", 0, Counters(), NOBODY, 0, NOBODY, NOBODY)
    missing = ["worker-0 of h/6 (pid 7)", "worker-1 of h/6 (pid 8)", "worker-0 of k/5 (pid 3)"]
    found = missing_workers({"h/6": 3}, Gathered([answered], 1, missing))
    assert found == ["worker-0 of k/5 (pid 3)", "worker-1 of h/6 (pid 8)", "worker-2 of h/6"]
