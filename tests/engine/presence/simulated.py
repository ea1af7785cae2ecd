"""Workers and watchers of one channel, between which deltas are delayed, lost and repeated as a test says."""

from fanline.engine.presence.attendance import LINGER_SECONDS, Attendance
from fanline.engine.presence.delta import PresenceDelta, decode, encode
from fanline.engine.presence.news import PresenceNews
from fanline.engine.presence.roster import Roster
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.messages.answers import PresenceData
from fanline.protocol.messages.control_data import read

CHANNEL = "room:1"
OTHER = "room:2"
"""A channel that nobody watches: its deltas have numbers, too."""


def over_the_bus(delta: PresenceDelta) -> PresenceDelta:
    decoded = decode(encode(delta))
    assert decoded == delta
    return decoded


class Worker:
    def __init__(self, name: str, limit: int) -> None:
        self.name = name
        self.attendance = Attendance(name, limit)
        self.connections: list[str | None] = []
        self.dead = False


class Viewer:
    """Believes what it is told, and checks that each notice follows on the one before."""

    def __init__(self, data: PresenceData) -> None:
        self.users = None if data.users is None else {user.user_id for user in data.users}
        self.counts = (data.count, data.connections)

    def take(self, envelope: Envelope) -> None:
        if envelope.type == MessageType.PRESENCE:
            told = read(PresenceData, envelope)
            self.users = None if told.users is None else {user.user_id for user in told.users}
            self.counts = (told.count, told.connections)
            return
        assert self.users is not None, "a notice on a large channel"
        assert envelope.sender is not None
        if envelope.type == MessageType.JOIN:
            assert envelope.sender not in self.users, "a second join"
            self.users.add(envelope.sender)
        else:
            assert envelope.type == MessageType.LEAVE
            assert envelope.sender in self.users, "a leave of a user who is not there"
            self.users.remove(envelope.sender)


class Watcher:
    def __init__(self, workers: list[Worker], limit: int) -> None:
        self._workers = {worker.name: worker for worker in workers}
        self.roster = Roster()
        self.news = PresenceNews(CHANNEL, self.roster, limit)
        self.on_the_way: dict[str, list[PresenceDelta]] = {worker.name: [] for worker in workers}
        self.buried: set[str] = set()
        for worker in workers:
            if not worker.dead:
                assert self.roster.take(over_the_bus(worker.attendance.snapshot(CHANNEL)))
        self.news.take(0, 0.0)
        self.viewer = Viewer(self.data())

    def data(self) -> PresenceData:
        return read(PresenceData, Envelope(data=self.news.data()))

    def hear(self, worker: str, delta: PresenceDelta, now: float) -> None:
        if worker in self.buried:
            return
        if not self.roster.take(delta) and not self._workers[worker].dead:
            snapshot = self._workers[worker].attendance.snapshot(CHANNEL)
            self.on_the_way[worker].append(over_the_bus(snapshot))
        self.tell_viewer(now)

    def bury(self, worker: str, now: float) -> None:
        self.buried.add(worker)
        self.roster.drop(worker)
        self.tell_viewer(now)

    def tell_viewer(self, now: float) -> None:
        for envelope in self.news.take(0, now):
            self.viewer.take(envelope)


class Cluster:
    """Its workers, watchers and clock."""

    def __init__(self, workers: int, limit: int) -> None:
        self.now = 0.0
        self._limit = limit
        self.workers = [Worker(f"w{number}", limit) for number in range(workers)]
        self.watchers: list[Watcher] = []

    def watch(self) -> None:
        self.watchers.append(Watcher(self.workers, self._limit))

    def enter(self, worker: Worker, user: str | None) -> None:
        if not worker.dead:
            worker.attendance.enter(CHANNEL, user, None if user is None else user.upper())
            worker.connections.append(user)

    def part(self, worker: Worker, which: int, *, lost: bool) -> None:
        if worker.dead or not worker.connections:
            return
        user = worker.connections.pop(which % len(worker.connections))
        if lost:
            worker.attendance.lose(CHANNEL, user, self.now)
        else:
            worker.attendance.leave(CHANNEL, user)

    def distract(self, worker: Worker) -> None:
        """Something happens on another channel."""
        if not worker.dead:
            worker.attendance.enter(OTHER, "somebody", None)
            worker.attendance.leave(OTHER, "somebody")
            worker.attendance.enter(OTHER, None, None)
            worker.attendance.take(OTHER)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for worker in self.workers:
            if not worker.dead:
                worker.attendance.expire(self.now)

    def tell(self, worker: Worker) -> None:
        delta = None if worker.dead else worker.attendance.take(CHANNEL)
        if delta is not None:
            for watcher in self.watchers:
                watcher.on_the_way[worker.name].append(over_the_bus(delta))

    def kill(self, worker: Worker) -> None:
        worker.dead = True
        worker.connections.clear()

    def settle(self) -> None:
        """Everything arrives in the end, or is missed and asked for."""
        self.pass_time(LINGER_SECONDS)
        for worker in self.workers:
            self.tell(worker)
        for watcher in self.watchers:
            for worker in self.workers:
                if worker.dead and worker.name not in watcher.buried:
                    watcher.bury(worker.name, self.now)
            self._deliver_all(watcher)
            for worker in self.workers:
                if not worker.dead:
                    self._compare(watcher, worker)
            self._deliver_all(watcher)
            self.now += 1.0
            watcher.tell_viewer(self.now)

    def _deliver_all(self, watcher: Watcher) -> None:
        while any(watcher.on_the_way.values()):
            for name, queue in watcher.on_the_way.items():
                if queue:
                    watcher.hear(name, queue.pop(0), self.now)

    def _compare(self, watcher: Watcher, worker: Worker) -> None:
        [number] = worker.attendance.numbers([CHANNEL])
        behind = number > watcher.roster.number_of(worker.name)
        if behind or (not number and watcher.roster.has_users_of(worker.name)):
            watcher.on_the_way[worker.name].append(over_the_bus(worker.attendance.snapshot(CHANNEL)))

    def users(self) -> set[str]:
        return {user for worker in self.workers for user in worker.connections if user is not None}

    def connections(self) -> int:
        return sum(len(worker.connections) for worker in self.workers)
