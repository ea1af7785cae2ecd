"""How what the embedded server may store is shared out."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanline.engine.namespaces import DEFAULTS, Namespace, Storage
from fanline.workers.embedded_nats.limits import LEAST_BYTES, share_out

DURABLE = {name: each for name, each in DEFAULTS.items() if each.durable}
GIB = 1 << 30


def test_where_there_is_room_for_all_each_namespace_has_what_it_asks_for() -> None:
    limits = share_out(DURABLE, 100 * GIB, GIB)
    assert limits.namespaces == DURABLE


def test_where_there_is_not_each_has_a_part_in_proportion() -> None:
    asked = {"a": Namespace(durable=True, max_bytes=3 * GIB), "b": Namespace(durable=True, max_bytes=GIB)}
    shares = {name: each.max_bytes for name, each in share_out(asked, 64 << 20, GIB).namespaces.items()}
    assert shares["a"] == pytest.approx(shares["b"], rel=0.01)  # none can have more than all there is
    asked["b"] = msgspec.structs.replace(asked["b"], max_bytes=(40 << 20) // 3)  # of the five eighths
    shares = {name: each.max_bytes for name, each in share_out(asked, 64 << 20, GIB).namespaces.items()}
    assert shares["a"] == pytest.approx(3 * shares["b"], rel=0.01)


def test_a_namespace_in_memory_takes_nothing_of_the_disk() -> None:
    asked = {**DURABLE, "fast": Namespace(durable=True, storage=Storage.MEMORY, max_bytes=-1)}
    limits = share_out(asked, 100 * GIB, 2 * GIB)
    assert {name: each for name, each in limits.namespaces.items() if name != "fast"} == DURABLE
    assert limits.namespaces["fast"].max_bytes == limits.memory_bytes == 2 * GIB


@given(
    sizes=st.lists(st.one_of(st.just(-1), st.integers(0, 10 * GIB)), min_size=1, max_size=20),
    total=st.integers(LEAST_BYTES, 100 * GIB),
)
def test_shares_and_reserve_are_never_more_than_there_is(sizes: list[int], total: int) -> None:
    asked = {f"n{number}": Namespace(durable=True, max_bytes=size) for number, size in enumerate(sizes)}
    limits = share_out(asked, total, GIB)
    assert sum(each.max_bytes for each in limits.namespaces.values()) + 12 * limits.bucket_bytes <= total
    assert limits.bucket_bytes >= LEAST_BYTES // 32
    assert all(each.max_bytes >= 0 for each in limits.namespaces.values())
