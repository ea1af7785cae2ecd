"""The channels to which a client is subscribed because of its route."""

from collections.abc import Awaitable, Callable

from fanline.engine.channels.joining.join import Answer
from fanline.engine.namespaces import Namespaces
from fanline.engine.sessions.session import Session
from fanline.protocol.channels import is_pattern
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.messages.commands import Subscribe

SubscribeTo = Callable[[Session, Envelope, Answer], Awaitable[None]]
"""Performs a `sub`. MessageError, BusError."""


async def join_route(session: Session, subscribe: SubscribeTo, namespaces: Namespaces) -> None:
    """Subscribe a client to what its route joins, once it is known. MessageError, BusError.

    A plain client is not told, and just gets what is to be shown of a channel. A v1 client that does not know of the
    subscription either, and subscribes by itself, gets an answer as to any first `sub`.
    """
    if not session.identity.known:
        return
    is_plain = session.encoding.dialect.is_plain
    for channel in session.route.channels(session.visit, session.identity.user, is_plain=is_plain):
        if channel in (session.subscriptions or {}):
            continue
        is_task = namespaces.of(channel).tasks and not is_pattern(channel)
        data = Subscribe(snapshot=True).fields() if is_task else None
        command = Envelope(MessageType.SUB, channel=channel, data=data)
        await subscribe(session, command, _unheard if is_plain else session.push)
        if not is_plain:
            session.unasked = {*(session.unasked or ()), channel}


def _unheard(reply: Envelope) -> None:
    """An answer that is not sent."""
