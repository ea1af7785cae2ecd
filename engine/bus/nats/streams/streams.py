"""The streams of durable namespaces and buckets: whichever worker comes first creates or updates them."""

import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.nats.jetstream import JetStreamError, bucket_config, differs, stream_config
from fanline.engine.bus.nats.streams.starts import with_start
from fanline.engine.bus.nats.streams.work_streams import work_configs
from fanline.engine.bus.parallel import for_each
from fanline.engine.bus.stored import RESUME_WINDOW
from fanline.engine.namespaces import Namespaces
from fanline.protocol.management.monitor import MINUTES_KEPT_SECONDS
from fanline.protocol.nats.names import Bucket, namespace_subject

_MAX_AGE = {  # seconds; 0: no limit
    **dict.fromkeys(Bucket, 0.0),
    Bucket.SESSIONS: RESUME_WINDOW,
    Bucket.MINUTES: MINUTES_KEPT_SECONDS,
}
_NOT_FOUND = 404
_UNAVAILABLE = 503  # JetStream cannot do it now; what it will never do has other codes, 500 among them
_log = logging.getLogger("fanline.streams")


class RefusedError(BusError):
    """JetStream refuses a stream as the settings describe it; trying again would not help."""


Api = Callable[[str, str, bytes], Awaitable[dict[str, Any]]]
"""(verb, stream, request) -> the JetStream API's reply. JetStreamError if it refuses, BusError without an answer."""


async def ensure_streams(api: Api, namespaces: Namespaces, bucket_bytes: int = -1) -> None:
    """Create or update the stream of every durable namespace and every bucket, and the work queues, as the settings
    say. Idempotent.

    `bucket_bytes`: as in EngineSettings.

    RefusedError, which says what to do, if JetStream refuses; BusError if it cannot be asked now.
    """
    copies = max((namespace.replicas for namespace in namespaces.durable().values()), default=1)
    wanted = [
        *((f"stream of namespace {name}", stream_config(name, each)) for name, each in namespaces.durable().items()),
        *((f"bucket {each}", bucket_config(each, age, copies, bucket_bytes)) for each, age in _MAX_AGE.items()),
        *((f"stream {config['name']}", config) for config in work_configs(copies, bucket_bytes)),
    ]

    async def ensure(one: tuple[str, dict[str, Any]]) -> None:
        await _ensure(api, *one)

    await for_each(ensure, wanted)


async def _ensure(api: Api, what: str, config: dict[str, Any]) -> None:
    try:
        found = await api("STREAM.INFO", config["name"], b"")
    except JetStreamError as error:
        if error.code != _NOT_FOUND:
            raise
        await _change(api, "STREAM.CREATE", what, config)
        return
    if changed := differs(config, found["config"]):
        _log.info("stream %s: changing %s", config["name"], ", ".join(changed))
        kept = found["config"].get("metadata") or {}  # an update replaces it: the starts stand there
        await _change(api, "STREAM.UPDATE", what, {**config, "metadata": kept})


async def _change(api: Api, verb: str, what: str, config: dict[str, Any]) -> None:
    try:
        await api(verb, config["name"], msgspec.json.encode(config))
    except JetStreamError as error:
        if error.code == _UNAVAILABLE:
            raise
        raise RefusedError(
            f"the {what} cannot be brought in line with the settings: {error}. Change the settings back, or "
            f"delete the stream {config['name']} with its messages and start again"
        ) from None


async def begin_start(api: Api) -> None:
    """Note a new start in every stream of a namespace, also of one that the settings no longer have. BusError.

    To be called while no other client can write.
    """
    name = secrets.token_hex(4)

    async def note(stream: str) -> None:
        info = await api("STREAM.INFO", stream, b"")
        await api("STREAM.UPDATE", stream, msgspec.json.encode(with_start(info, name)))

    found = await api("STREAM.NAMES", "", msgspec.json.encode({"subject": namespace_subject("*")}))
    await for_each(note, found.get("streams") or [])
