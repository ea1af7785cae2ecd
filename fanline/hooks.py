"""Hooks: the application's own code hears what happens on the server, and answers what clients ask.

    from fanline.hooks import ClientMessage, Hooks, ServerEvent

    def setup(hooks: Hooks) -> None:
        hooks.on("user_connected", greet)
        hooks.on_message("approve_order", approve)

or, in a web application that has a webhook,

    for event in read_webhook(body, headers, secret):
        ...

See docs/reference/hooks.md. It needs nothing of the server, so that hooks can be tested anywhere.
"""

import time
from collections.abc import Mapping

from fanline.protocol.hooks.events import BadEventError, ServerEvent, decode_batch
from fanline.protocol.hooks.hooks import HookError, HookRefusal, Hooks
from fanline.protocol.hooks.questions import ClientCall, ClientMessage
from fanline.protocol.hooks.signing import BadSignatureError, check_signed, key_of

__all__ = [
    "BadEventError",
    "BadSignatureError",
    "ClientCall",
    "ClientMessage",
    "HookError",
    "HookRefusal",
    "Hooks",
    "ServerEvent",
    "read_webhook",
]


def read_webhook(body: bytes, headers: Mapping[str, str], secret: str) -> list[ServerEvent]:
    """The events in a request to a webhook, oldest first. `headers`: as web frameworks have them, or with names in
    lower case; `secret`: that of the settings. An event may come twice, with the same `id`.

    Raises BadSignatureError for a request that the server has not made, or made more than five minutes ago: answer it
    with status 401 or 403. BadEventError, ValueError: it cannot be read; the secret is none.
    """
    check_signed(key_of(secret), headers, body, time.time())
    return decode_batch(body)
