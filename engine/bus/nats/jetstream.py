"""JetStream's requests and replies as values: how our streams are configured, and how their messages are read.

No I/O here; NatsBus carries the bytes. Sources: the JetStream API subjects `$JS.API.*`, ADR-31 (direct get, batched)
and ADR-28 (republish) of the NATS architecture documents.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from fanline.engine.bus.errors import BusError, StorageFullError
from fanline.engine.bus.nats.streams.starts import read_starts
from fanline.engine.bus.stored import READ_BATCH, Epoch, KvEntry, StreamPosition, StreamState
from fanline.engine.namespaces import Namespace, Storage
from fanline.protocol.nats.names import (
    Bucket,
    bucket_stream,
    bucket_subject,
    change_subject,
    namespace_subject,
    stream_name,
)
from fanline.protocol.nats.parser import NatsMessage, header_of
from fanline.protocol.nats.replies import OTHER_STREAM, is_storage_full
from fanline.protocol.nats.subjects import Direction

_PAGE_BYTES = 1024 * 1024  # what is read at once; a worker holds many pages at a time
_LAST_BYTES = 8 * 1024 * 1024  # of the newest messages of many channels; the server would cut at 64 MiB

_DEDUPLICATION_SECONDS = 120.0
_AGING = frozenset(  # for `kv_put`
    (Bucket.TASKS, Bucket.RUNNING, Bucket.REVOKED, Bucket.WORKERS, Bucket.ITEMS, Bucket.NOTIFIED)
)
_SMALL = frozenset(
    (Bucket.LEASES, Bucket.PLACES, Bucket.REVOKED, Bucket.WORKERS, Bucket.ALARMS, Bucket.KEYS, Bucket.PREFERENCES)
)
WATCHED = frozenset((Bucket.API_KEYS, Bucket.WORKERS))
"""Those of which the store says what it has stored, for `kv_watch`."""
_encoder = msgspec.json.Encoder()


def stream_config(name: str, namespace: Namespace) -> dict[str, Any]:
    """The stream of a durable namespace: stores `fanline.pub.<ns>.>`, republishes it with offsets on `fanline.out`."""
    nanoseconds = round(namespace.max_age * 1e9)
    return {
        "name": stream_name(name),
        "subjects": [namespace_subject(name)],
        "republish": {"src": namespace_subject(name), "dest": f"fanline.{Direction.OUT}.{name}.>"},
        "retention": "limits",
        "discard": "old",
        "storage": namespace.storage,
        "num_replicas": namespace.replicas,
        "max_msgs_per_subject": namespace.history,
        "max_age": nanoseconds,
        "max_bytes": namespace.max_bytes,
        # JetStream would cut a longer window silently.
        "duplicate_window": min(nanoseconds, round(_DEDUPLICATION_SECONDS * 1e9)),
        "allow_direct": True,
        "allow_msg_ttl": True,
    }


def bucket_config(bucket: Bucket, max_age: float, replicas: int, max_bytes: int) -> dict[str, Any]:
    """The stream behind a key-value bucket, as NATS clients expect it (ADR-8), except that one with a limit drops its
    oldest entries: nothing may wait for room in it. `max_age` in seconds, 0 for no limit; `max_bytes`: -1 for no limit.
    """
    ages_by_key = bucket in _AGING
    if bucket in _SMALL:
        max_bytes = -1  # they are small, and must never be refused or dropped
    return {
        "name": bucket_stream(bucket),
        "subjects": [bucket_subject(bucket, ">")],
        "retention": "limits",
        "discard": "new" if max_bytes < 0 else "old",
        "max_bytes": max_bytes,
        "storage": Storage.FILE,
        "num_replicas": replicas,
        "max_msgs_per_subject": 1,
        "max_age": round(max_age * 1e9),
        "allow_direct": True,
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        **({"allow_msg_ttl": True} if ages_by_key else {}),
        **({"republish": _changes(bucket)} if bucket in WATCHED else {}),
    }


def _changes(bucket: Bucket) -> dict[str, str]:
    """What is published where when it is stored: a subscription to the bucket's own subjects would be told before that,
    and also of what is refused.
    """
    return {"src": bucket_subject(bucket, ">"), "dest": change_subject(bucket, ">")}


def get_request(bucket: Bucket, key: str) -> bytes:
    """Direct get of a key's newest value."""
    return _encoder.encode({"last_by_subj": bucket_subject(bucket, key)})


def differs(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """The keys in which a stream differs from what is wanted; keys that the server adds do not count."""
    return [key for key, value in wanted.items() if found.get(key) != value]


def api_reply(payload: bytes) -> dict[str, Any]:
    """The JSON object of an API reply; BusError with JetStream's own words if it is an error."""
    try:
        reply: dict[str, Any] = msgspec.json.decode(payload, type=dict)
    except msgspec.DecodeError:
        raise BusError("the answer is not JetStream's; no other client may reply on fanline.pub.>") from None
    error = reply.get("error")
    if error:
        description = error.get("description", "no reason given")
        if is_storage_full(error):
            raise StorageFullError(f"the store is full, and nothing was stored (JetStream: {description})")
        raise JetStreamError(error.get("code", 0), description, error.get("err_code", 0))
    return reply


class JetStreamError(BusError):
    """JetStream refused; `code` is its HTTP-like status, `number` that of the error itself."""

    def __init__(self, code: int, description: str, number: int = 0) -> None:
        super().__init__(f"JetStream refused: {description}")
        self.code = code
        self.number = number


class NoJetStreamError(BusError):
    """No JetStream listens there: nothing was done."""


EXPECTED_STREAM = "Nats-Expected-Stream"
"""Header of a message that is to be stored by the stream of this name alone."""


def check_room(info: Mapping[str, Any]) -> None:
    """StorageFullError if a stream is full that refuses what is new, as an operator may have set it up."""
    config, state = info["config"], info["state"]
    if config.get("discard") != "new":
        return
    for limit, used in (("max_bytes", state["bytes"]), ("max_msgs", state["messages"])):
        if 0 < config.get(limit, -1) <= used:
            raise StorageFullError(f"{config['name']} has reached its {limit}, and drops no old messages")


def check_refusal(payload: bytes) -> None:
    """Raises BusError unless a stream has refused a message for EXPECTED_STREAM alone."""
    try:
        api_reply(payload)
    except JetStreamError as error:
        if error.number != OTHER_STREAM:
            raise


DELETED_STREAMS = "$JS.EVENT.ADVISORY.STREAM.DELETED.*"
"""Subjects on which the server announces that a stream was deleted; the last token is the stream's name."""


def read_request(subject: str, start: int, most: int = READ_BATCH) -> bytes:
    """Batched direct get: messages on a subject (wildcards allowed) from sequence `start` on, oldest first."""
    request = {"seq": max(1, start), "batch": most, "max_bytes": _PAGE_BYTES, "next_by_subj": subject}
    return _encoder.encode(request)


def one_request(sequence: int) -> bytes:
    """Direct get: the message with this sequence."""
    return _encoder.encode({"seq": sequence})


def last_request(subjects: Sequence[str]) -> bytes:
    """multi_last: the newest message on each subject that has one."""
    return _encoder.encode({"multi_last": subjects, "max_bytes": _LAST_BYTES})


def position_of(headers: bytes) -> StreamPosition:
    """A message's position, from the headers of a republished message or of a direct get; on the hot path. ValueError
    if they are not JetStream's.
    """
    time = header_of(headers, "Nats-Time-Stamp")
    if not time:
        raise ValueError("the headers have no time stamp of JetStream")
    last = header_of(headers, "Nats-Last-Sequence")
    return StreamPosition(int(header_of(headers, "Nats-Sequence") or ""), int(last or 0), time)


def sequence_of(message: NatsMessage) -> int:
    """The sequence of a message that a direct get has found."""
    return int(header_of(message.headers, "Nats-Sequence") or 0)


def subject_of(message: NatsMessage) -> str:
    """The subject under which it is stored."""
    return header_of(message.headers, "Nats-Subject") or ""


def entry_of(message: NatsMessage) -> KvEntry:
    """The entry of a key, read by a direct get."""
    return KvEntry(message.payload, sequence_of(message), header_of(message.headers, "Nats-Time-Stamp") or "")


def state_of(info: Mapping[str, Any]) -> StreamState:
    """A stream's state, from the reply to STREAM.INFO."""
    state = info["state"]
    empty = not state["messages"]
    first_time = float("inf") if empty else datetime.fromisoformat(state["first_ts"]).timestamp()
    first = state["last_seq"] + 1 if empty else state["first_seq"]
    return StreamState(epoch_of(info), first, state["last_seq"], first_time, state["bytes"])


def epoch_of(info: Mapping[str, Any]) -> Epoch:
    """The epoch of a stream, named after its creation and the server's start; without starts, its creation alone."""
    created = _base36(info["created"])
    names = {f"{created}.{start}" if start else created: valid for start, valid in read_starts(info).items()}
    *earlier, now = names.items()
    return Epoch(now[0], dict(earlier))


def _base36(created: str) -> str:
    """A short name for one life of a stream: the microsecond in which it was created, in base 36."""
    number, digits = int(datetime.fromisoformat(created).timestamp() * 1e6), ""
    while number:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits
