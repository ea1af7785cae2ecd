"""Whatever is delayed, lost or killed: every watcher knows the truth in the end, and its notices make sense."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.engine.presence.simulated import Cluster

_WORKERS = st.integers(0, 2)
_WHICH = st.integers(0, 5)
_STEPS: st.SearchStrategy[tuple[Any, ...]] = st.one_of(
    st.tuples(st.just("enter"), _WORKERS, st.sampled_from(["ann", "bob", "cid", "dan", "eve", None])),
    st.tuples(st.just("leave"), _WORKERS, _WHICH),
    st.tuples(st.just("lose"), _WORKERS, _WHICH),
    st.tuples(st.just("distract"), _WORKERS),
    st.tuples(st.just("pass"), st.sampled_from([0.1, 1.0, 4.9, 5.0])),
    st.tuples(st.just("tell"), _WORKERS),
    st.tuples(st.just("deliver"), _WHICH, _WORKERS),
    st.tuples(st.just("miss"), _WHICH, _WORKERS),
    st.tuples(st.just("repeat"), _WHICH, _WORKERS),
    st.tuples(st.just("swap"), _WHICH, _WORKERS),
    st.tuples(st.just("watch")),
    st.tuples(st.just("kill"), _WORKERS),
    st.tuples(st.just("bury"), _WHICH, _WORKERS),
)


def perform(cluster: Cluster, step: tuple[Any, ...]) -> None:
    match step:
        case ("enter", worker, user):
            cluster.enter(cluster.workers[worker], user)
        case ("leave" | "lose" as how, worker, which):
            cluster.part(cluster.workers[worker], which, lost=how == "lose")
        case ("distract", worker):
            cluster.distract(cluster.workers[worker])
        case ("pass", seconds):
            cluster.pass_time(seconds)
        case ("tell", worker):
            cluster.tell(cluster.workers[worker])
        case ("watch",):
            cluster.watch()
        case ("kill", worker):
            cluster.kill(cluster.workers[worker])
        case ("bury", which, worker) if cluster.workers[worker].dead and cluster.watchers:
            cluster.watchers[which % len(cluster.watchers)].bury(cluster.workers[worker].name, cluster.now)
        case ("deliver" | "miss" | "repeat" | "swap" as what, which, worker) if cluster.watchers:
            hinder(cluster, what, which, cluster.workers[worker].name)


def hinder(cluster: Cluster, what: str, which: int, worker: str) -> None:
    """Something happens to the first delta that is on its way."""
    watcher = cluster.watchers[which % len(cluster.watchers)]
    queue = watcher.on_the_way[worker]
    if not queue:
        return
    delta = queue.pop(0)
    if what == "swap":
        queue.insert(min(1, len(queue)), delta)
    elif what == "repeat":
        queue.append(delta)
    if what in ("deliver", "repeat"):
        watcher.hear(worker, delta, cluster.now)


@given(st.lists(_STEPS, max_size=60), st.sampled_from([1, 3, 100]))
def test_every_watcher_knows_the_truth_in_the_end_and_notices_alternate(
    steps: list[tuple[Any, ...]], limit: int
) -> None:
    cluster = Cluster(workers=3, limit=limit)
    cluster.watch()
    for step in steps:
        perform(cluster, step)
    cluster.settle()
    for watcher in cluster.watchers:
        assert watcher.roster.count == len(cluster.users())
        assert watcher.roster.connections == cluster.connections()
        if watcher.viewer.users is None:
            assert watcher.viewer.counts == (len(cluster.users()), cluster.connections())
        else:
            assert watcher.viewer.users == cluster.users()
            assert {user.user_id for user in watcher.data().users or ()} == cluster.users()
