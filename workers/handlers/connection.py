"""The connection of the process of handlers to NATS, by nats-py."""

import logging
import ssl
from collections.abc import Callable
from typing import Any

from nats.aio.client import Client

from fanline.engine.log_pace import LogPace
from fanline.workers.configuration.settings import Settings

_RECONNECT_SECONDS = 1
_log = logging.getLogger("fanline.handlers")


async def connect(settings: Settings, on_closed: Callable[[], None]) -> Client:
    """A client that connects as the workers do, and reconnects. Waits while no server can be reached; OSError if a file
    cannot be read.

    `on_closed`: called when the client has become useless. nats-py does not reconnect after most errors that a server
    reports.
    """
    client, pace = Client(), LogPace()

    async def lost() -> None:
        _log.warning("NATS is away")

    async def back() -> None:
        _log.info("NATS is back")

    async def closed() -> None:
        _log.critical("the connection to NATS has ended for good: %s", client.last_error)
        on_closed()

    async def failed(error: Exception) -> None:
        level = logging.WARNING if client.is_connected else logging.DEBUG  # otherwise it is one of many tries
        if not pace.allows((level, type(error).__name__)):  # one for each message that a subscription has no room for
            return
        _log.log(level, "NATS: %s", error or type(error).__name__)

    options: dict[str, Any] = {
        "user": settings.nats_user,
        "password": settings.nats_password,
        "token": settings.nats_token,
        "user_credentials": settings.nats_creds,
        "nkeys_seed": settings.nats_nkey,
        "tls": _tls(settings),
    }
    await client.connect(
        list(settings.nats_urls),
        name="handlers",
        disconnected_cb=lost,
        reconnected_cb=back,
        closed_cb=closed,
        error_cb=failed,
        reconnect_time_wait=_RECONNECT_SECONDS,
        max_reconnect_attempts=-1,
        **{key: value for key, value in options.items() if value},
    )
    return client


def _tls(settings: Settings) -> ssl.SSLContext | None:
    """None if the URLs alone say whether to use TLS."""
    if not (settings.nats_tls_ca or settings.nats_tls_cert):
        return None
    context = ssl.create_default_context(cafile=settings.nats_tls_ca or None)
    if settings.nats_tls_cert:
        context.load_cert_chain(settings.nats_tls_cert, settings.nats_tls_key or None)
    return context
