"""What happens to workers is told by the process that leads, also by one that leads only soon afterwards."""

from fanline.engine.bus.memory import MemoryBroker, MemoryBus
from fanline.engine.cluster.members import Member
from fanline.engine.namespaces import Namespaces
from fanline.protocol.management.monitor import Draining
from fanline.workers.control.monitoring.announcer import SystemAnnouncer
from fanline.workers.control.monitoring.reporter import Reporter
from tests.workers.control.monitoring.told import Told

ONE, OTHER = (Member(host="h", pid=pid, name=f"worker-{pid}", started=pid, server="h/9") for pid in (1, 2))


class Process:
    """The reporter of a control process, by a clock that a test sets."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.now = 1_000_000.0
        self.reporter = Reporter(SystemAnnouncer(MemoryBus(broker), Namespaces(), lambda: None), lambda: self.now)

    async def look(self, *live: Member, leads: bool, after: float = 1.0) -> None:
        self.now += after
        await self.reporter.tell_changes({str(each.pid): each for each in live}, leads=leads)


def events(told: Told) -> list[tuple[str, str]]:
    return [(data["event"], data["worker"]) for _, data in told.system()]


async def test_a_death_that_nobody_could_tell_is_told_by_whoever_leads_next_and_once() -> None:  # S2-108
    broker = MemoryBroker()
    told = await Told(broker).start()
    first, second = Process(broker), Process(broker)
    for process in (first, second):
        await process.look(ONE, OTHER, leads=False)
        await process.look(ONE, leads=False)
    assert events(told) == []
    await first.look(ONE, leads=True, after=14.0)
    assert events(told) == [("worker_died", "worker-2")]
    await first.look(ONE, leads=True)
    await second.look(ONE, leads=True, after=14.0)
    assert events(told) == [("worker_died", "worker-2")]


async def test_a_death_of_long_ago_is_not_told() -> None:
    broker = MemoryBroker()
    told = await Told(broker).start()
    process = Process(broker)
    await process.look(ONE, OTHER, leads=False)
    await process.look(ONE, leads=False)
    await process.look(ONE, leads=True, after=16.0)
    assert events(told) == []


async def test_a_drain_that_nobody_could_tell_is_told_by_whoever_leads_next_and_once() -> None:  # S2-108
    broker = MemoryBroker()
    told = await Told(broker).start()
    first, second = Process(broker), Process(broker)
    for process in (first, second):
        process.reporter.drains(Draining(id="a", server="h/9", host="h", name="worker-2"))
        await process.look(ONE, OTHER, leads=False)
    await first.look(ONE, OTHER, leads=True)
    await second.look(ONE, OTHER, leads=True)
    assert events(told) == [("draining", "worker-2")]


async def test_a_worker_that_freezes_again_an_hour_later_is_told_again() -> None:
    broker = MemoryBroker()
    told = await Told(broker).start()
    process = Process(broker)
    await process.look(ONE, OTHER, leads=True)
    for _ in range(2):
        await process.look(ONE, leads=True, after=3600)
        await process.look(ONE, OTHER, leads=True)
    assert [event for event, _ in events(told)] == ["worker_died", "worker_returned"] * 2
    assert len({each["id"] for each in told.notifications}) == len(told.notifications) == 4
    assert "was not restarted" in told.system()[1][1]["message"]
