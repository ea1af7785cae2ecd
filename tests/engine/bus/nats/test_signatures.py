"""What the engine signs, and which messages count as signed. The real nats-server is in test_store_contract.py."""

from datetime import UTC, datetime

import pytest

from fanline.engine.bus.memory import MemoryBroker, MemoryBus
from fanline.engine.bus.nats.signatures import FRESH_SECONDS, Signatures
from fanline.engine.bus.stored import KvEntry
from fanline.protocol.nats.names import MESSAGE_ID, SIGNATURE, SIGNING_KEY, Bucket
from fanline.protocol.nats.parser import NatsMessage

NOW = 1_800_000_000
CHANNEL, PAYLOAD = "task:1", b'{"e":"task_stalled"}'


def timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


async def prepared(broker: MemoryBroker | None = None) -> Signatures:
    signatures = Signatures()
    await signatures.prepare(MemoryBus(broker or MemoryBroker(clock=lambda: NOW - 1000)))
    signatures.hear_time(timestamp(NOW))
    return signatures


def message(headers: dict[str, str], payload: bytes = PAYLOAD, *, stored: float = NOW, more: str = "") -> NatsMessage:
    """As JetStream republishes it; `more`: header lines that come after the publisher's."""
    position = {"Nats-Sequence": "7", "Nats-Time-Stamp": timestamp(stored), "Nats-Last-Sequence": "3"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in (headers | position).items())
    return NatsMessage(1, "fanline.out.task.1", "", payload, f"NATS/1.0\r\n{more}{lines}\r\n".encode())


class BucketOfAKey(MemoryBus):
    """A bus whose key was stored at a time as nats-server writes it: RFC 3339, without the last zeros."""

    def __init__(self, time: str) -> None:
        super().__init__()
        self._time = time

    async def kv_get(self, bucket: Bucket, key: str) -> KvEntry:
        return KvEntry(b"key", 1, self._time)


async def test_what_was_signed_is_signed_for_every_worker() -> None:
    broker = MemoryBroker(clock=lambda: NOW - 1000)
    one, other = await prepared(broker), await prepared(broker)
    position = other.position_of(CHANNEL, message(one.headers(CHANNEL, "e/x", PAYLOAD)))
    assert (position.signed, position.offset, position.previous) == (True, 7, 3)


async def test_another_cluster_signs_otherwise() -> None:
    one, other = await prepared(), await prepared()
    assert not other.position_of(CHANNEL, message(one.headers(CHANNEL, "e/x", PAYLOAD))).signed


async def test_nothing_of_a_signed_message_can_be_changed() -> None:
    signatures = await prepared()
    headers = signatures.headers(CHANNEL, "e/x", PAYLOAD)
    store_id, signature = headers[MESSAGE_ID], headers[SIGNATURE]
    at, _, mac = signature.partition(" ")
    assert signatures.position_of(CHANNEL, message(headers)).signed
    assert not signatures.position_of("task:2", message(headers)).signed
    assert not signatures.position_of(CHANNEL, message(headers, PAYLOAD + b" ")).signed
    for changed in (
        {SIGNATURE: signature},
        {MESSAGE_ID: store_id},
        {MESSAGE_ID: f"{store_id}x", SIGNATURE: signature},
        {MESSAGE_ID: f"{store_id} ", SIGNATURE: signature},
        {MESSAGE_ID: store_id, SIGNATURE: f"{int(at) + 1} {mac}"},
        {MESSAGE_ID: store_id, SIGNATURE: mac},
        {MESSAGE_ID: store_id, SIGNATURE: f"{at} {mac[:-1]}"},
        {MESSAGE_ID: store_id, SIGNATURE: f"²{at} {mac}"},
        {MESSAGE_ID: store_id, SIGNATURE: f"{at} ²{mac}"},
        {MESSAGE_ID: store_id, SIGNATURE: ""},
    ):
        assert not signatures.position_of(CHANNEL, message(changed)).signed, changed


@pytest.mark.parametrize("more", [f"{MESSAGE_ID}: mine\r\n", f"X: {MESSAGE_ID}\r\n", f"X{MESSAGE_ID}: a\r\n"])
async def test_a_message_that_may_have_another_store_id_for_jetstream_is_not_signed(more: str) -> None:
    signatures = await prepared()
    headers = signatures.headers(CHANNEL, "e/x", PAYLOAD)
    assert not signatures.position_of(CHANNEL, message(headers, more=more)).signed


@pytest.mark.parametrize(("late", "signed"), [(0.5, True), (-0.5, True), (1.1, False), (-1.1, False)])
async def test_it_was_signed_when_it_was_stored(late: float, signed: bool) -> None:
    signatures = await prepared()
    stored = message(signatures.headers(CHANNEL, "e/x", PAYLOAD), stored=NOW + late * FRESH_SECONDS)
    assert signatures.position_of(CHANNEL, stored).signed is signed


async def test_what_is_older_than_the_key_is_believed_and_nothing_else_that_is_not_signed() -> None:
    signatures = await prepared(MemoryBroker(clock=lambda: NOW))
    assert signatures.position_of(CHANNEL, message({}, stored=NOW - 1)).signed
    assert not signatures.position_of(CHANNEL, message({}, stored=NOW + 1)).signed


async def test_a_fraction_of_a_second_without_its_last_zeros_is_compared_rightly() -> None:
    signatures = Signatures()
    await signatures.prepare(BucketOfAKey("2027-01-15T08:00:00.1Z"))
    for stored, believed in (("00.05Z", True), ("00.1Z", False), ("00.15Z", False), ("00.19Z", False), ("01Z", False)):
        later = message({}).headers.replace(timestamp(NOW).encode(), b"2027-01-15T08:00:" + stored.encode())
        position = signatures.position_of(CHANNEL, NatsMessage(1, "", "", PAYLOAD, later))
        assert (position.time.endswith(stored), position.signed) == (True, believed), stored


async def test_without_a_key_nothing_is_signed() -> None:
    signatures = Signatures()
    assert not signatures.position_of(CHANNEL, message(signatures.headers(CHANNEL, "e/x", PAYLOAD))).signed


async def test_a_store_id_cannot_be_guessed_and_two_workers_give_the_same_event_the_same_one() -> None:
    broker = MemoryBroker(clock=lambda: NOW)
    ids = {(await prepared(broker)).headers(CHANNEL, "e/x", PAYLOAD)[MESSAGE_ID] for _ in range(2)}
    assert len(ids) == 1
    assert (await prepared()).headers(CHANNEL, "e/x", PAYLOAD)[MESSAGE_ID] not in ids
    assert ids.pop().startswith("e/x/")


async def test_the_first_worker_makes_the_key_and_a_deleted_one_is_made_again() -> None:
    broker = MemoryBroker()
    await prepared(broker)
    first = broker.find(Bucket.KEYS, SIGNING_KEY)
    await prepared(broker)
    assert broker.find(Bucket.KEYS, SIGNING_KEY) == first
    broker.write(Bucket.KEYS, SIGNING_KEY, b"")
    await prepared(broker)
    again = broker.find(Bucket.KEYS, SIGNING_KEY)
    assert first is not None
    assert again is not None
    assert len(again.value) == len(first.value) == 64
    assert again.value != first.value


async def test_a_key_that_the_store_has_lost_is_stored_again_and_one_that_an_operator_deleted_is_not() -> None:
    broker = MemoryBroker()
    signatures = await prepared(broker)
    first = broker.find(Bucket.KEYS, SIGNING_KEY)
    assert first is not None
    broker.lose_buckets()
    await signatures.prepare(MemoryBus(broker))
    again = broker.find(Bucket.KEYS, SIGNING_KEY)
    assert again is not None
    assert again.value == first.value
    broker.write(Bucket.KEYS, SIGNING_KEY, b"")
    await signatures.prepare(MemoryBus(broker))
    deleted = broker.find(Bucket.KEYS, SIGNING_KEY)
    assert deleted is not None
    assert deleted.value == b""


async def test_a_worker_takes_the_key_that_another_one_has_stored_after_a_loss() -> None:
    broker = MemoryBroker(clock=lambda: NOW - 1000)
    signatures = await prepared(broker)
    broker.lose_buckets()
    other = await prepared(broker)
    await signatures.prepare(MemoryBus(broker))
    assert signatures.position_of(CHANNEL, message(other.headers(CHANNEL, "e/x", PAYLOAD))).signed
