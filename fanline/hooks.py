"""Hooks: the application's own code hears what happens on the server, and answers what clients ask.

    from fanline.hooks import ClientMessage, Hooks, ServerEvent

    def setup(hooks: Hooks) -> None:
        hooks.on("user_connected", greet)
        hooks.on_message("approve_order", approve)

See docs/reference/hooks.md. It needs nothing of the server, so that hooks can be tested anywhere.
"""

from fanline.protocol.hooks.events import ServerEvent
from fanline.protocol.hooks.hooks import HookError, HookRefusal, Hooks
from fanline.protocol.hooks.questions import ClientCall, ClientMessage

__all__ = ["ClientCall", "ClientMessage", "HookError", "HookRefusal", "Hooks", "ServerEvent"]
