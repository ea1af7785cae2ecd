"""Shares are even, and when a worker comes or goes only its own move."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from fanline.engine.cluster.shares import SHARES, owner_of, share_of

WORKERS = st.sets(st.text("0123456789abcdef-", min_size=1, max_size=24), min_size=1, max_size=12)


def test_the_share_of_a_task_never_changes() -> None:
    # Workers of different versions, and entries that are stored, rely on it.
    assert [share_of(f"task:{name}") for name in ("42", "a.b:c", "build", "")] == [5, 1, 2, 3]


def test_tasks_with_counted_or_random_names_are_spread_evenly() -> None:
    for name in ("task:{}", "task:job-{:06d}", "build:2026.11.{}", "task:{:x}"):
        counts = Counter(share_of(name.format(number)) for number in range(16_000))
        assert set(counts) == set(range(SHARES))
        assert max(counts.values()) < 1300
        assert min(counts.values()) > 700


@given(WORKERS, st.data())
def test_when_a_worker_goes_only_its_own_shares_move(workers: set[str], data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(sorted(workers)))
    before = {share: owner_of(share, workers) for share in range(SHARES)}
    rest = workers - {gone}
    for share, owner in before.items():
        assert owner in workers
        if rest and owner != gone:
            assert owner_of(share, rest) == owner


def test_each_of_a_few_workers_gets_its_part_of_the_shares() -> None:
    owned = Counter(
        owner_of(share, [f"{cluster}-{worker}" for worker in range(4)])[-1]
        for cluster in range(200)
        for share in range(SHARES)
    )
    for worker in "0123":
        assert 0.22 < owned[worker] / (200 * SHARES) < 0.28
