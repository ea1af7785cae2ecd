"""The streams of the durable namespaces: made and kept as the settings say, by whichever worker comes first."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from engine.bus import BusError
from engine.jetstream import JetStreamError, differs, stream_config
from engine.namespaces import Namespaces

_NOT_FOUND = 404
_log = logging.getLogger("fanline.streams")

Api = Callable[[str, str, bytes], Awaitable[dict[str, Any]]]
"""(verb, stream, request) -> reply of the JetStream API; raises JetStreamError."""


async def ensure_streams(api: Api, namespaces: Namespaces) -> None:
    """Make every durable namespace's stream what the settings say. Idempotent; BusError with what to do if refused."""
    for name, namespace in namespaces.durable().items():
        config = stream_config(name, namespace)
        try:
            found = await api("STREAM.INFO", config["name"], b"")
        except JetStreamError as error:
            if error.code != _NOT_FOUND:
                raise
            await _change(api, "STREAM.CREATE", name, config)
            continue
        if changed := differs(config, found["config"]):
            _log.info("stream %s: changing %s", config["name"], ", ".join(changed))
            await _change(api, "STREAM.UPDATE", name, config)


async def _change(api: Api, verb: str, name: str, config: dict[str, Any]) -> None:
    try:
        await api(verb, config["name"], msgspec.json.encode(config))
    except JetStreamError as error:
        raise BusError(
            f"the stream of namespace {name} cannot be made as the settings say: {error}. Change the settings back, or "
            f"delete the stream {config['name']} with its messages and start again"
        ) from None
