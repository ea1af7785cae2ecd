"""How a client says up to where it has read an inbox."""

from fanline.engine.bus.interface import Bus
from fanline.engine.channels.durable.channel import DurableChannel
from fanline.engine.channels.inbox import Acknowledgements, move_cursor
from fanline.engine.sessions.session import Session
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.messages.commands import command_channel, message_id_of
from fanline.protocol.websocket.ack_pings import acknowledged_offset


class InboxCommands:
    """Moves the cursors of the sessions of one worker."""

    def __init__(self, bus: Bus, acknowledgements: Acknowledgements) -> None:
        self._bus = bus
        self._acknowledgements = acknowledgements

    async def ack(self, session: Session, command: Envelope) -> Envelope:
        """Move an inbox's cursor to an offset (`o`), which may name its epoch (`ep`), or to the message whose id is the
        data.
        """
        session.acknowledges = True
        inbox = _inbox_of(session, command)
        message_id = message_id_of(command)
        offset = command.offset
        if offset is None and message_id is not None:
            offset = inbox.log.offset_of(message_id)
        if offset is None or offset > inbox.last or not inbox.epoch.covers(command.epoch, offset):
            named = command.value if command.offset is None else command.offset
            raise MessageError(ErrorCode.UNKNOWN_MESSAGE, f"{inbox.name} has no message {named!r} to acknowledge")
        await move_cursor(self._bus, inbox.name, offset, inbox.epoch)
        return Envelope(MessageType.OK, channel=inbox.name, offset=offset)

    def take_pong(self, session: Session, payload: bytes) -> None:
        """The client has taken an inbox up to what the ping behind a message has named."""
        if session.acknowledges:
            return
        for each in (session.subscriptions or {}).values():
            inbox = each.channel.durable if each.channel.namespace.inbox else None
            offset = None if inbox is None else acknowledged_offset(payload, inbox.name)
            if inbox is not None and offset is not None and offset <= inbox.last:
                self._acknowledgements.note(inbox.name, offset, inbox.epoch)


def _inbox_of(session: Session, command: Envelope) -> DurableChannel:
    """The inbox that an `ack` is about; without a channel it is the one this session is subscribed to."""
    subscriptions = session.subscriptions or {}
    inboxes = {name: each.channel.durable for name, each in subscriptions.items() if each.channel.namespace.inbox}
    channel = next(iter(inboxes)) if command.channel is None and len(inboxes) == 1 else command_channel(command)
    inbox = inboxes.get(channel)
    if inbox is None:
        raise MessageError(ErrorCode.NOT_SUBSCRIBED, f"not subscribed to an inbox {channel}")
    return inbox
