"""Urgent messages: they reach every connection of the worker, also those that have not subscribed to their channel."""

from collections.abc import Callable, Iterable

import msgspec

from fanline.engine.channels.audience.omissions import Omissions
from fanline.engine.channels.group import FlushBatch
from fanline.engine.faults import Faults
from fanline.engine.namespaces import Namespace
from fanline.engine.sending.batch import EncodedBatch, EncodedMessage
from fanline.engine.sending.outbox import Outbox
from fanline.protocol.dialects.encoding import Encoding
from fanline.protocol.envelope import Envelope

_NAMESPACE = Namespace(everywhere=True)
"""Of what goes to connections that have not subscribed: it is neither dropped nor conflated."""

Everyone = Callable[[], Iterable[tuple[Encoding, Outbox]]]
"""All open connections of the worker."""


class Broadcasts:
    """Collects urgent messages for connections that have not subscribed, until the flusher takes them."""

    def __init__(self, everyone: Everyone, omissions: Omissions, faults: Faults) -> None:
        self._everyone = everyone
        self._omissions = omissions
        self._faults = faults
        self.pending: list[FlushBatch] = []
        """Checked with every burst, hence not a property."""

    def append(self, envelope: Envelope) -> None:
        """Send an urgent message to every connection that does not get it as a subscriber."""
        bare = msgspec.structs.replace(envelope, offset=None, previous=None)  # they keep no count of this channel
        left_out = self._omissions.of_all(envelope)
        others: dict[Encoding, list[Outbox]] = {}
        for encoding, outbox in self._everyone():
            if outbox not in left_out:
                others.setdefault(encoding, []).append(outbox)
        for encoding, outboxes in others.items():
            try:
                messages = EncodedBatch([EncodedMessage(encoding.encode(bare), bare)], encoding, _NAMESPACE)
            except Exception:  # noqa: BLE001  # our own fault, and that of one encoding only
                self._faults.report(envelope.channel or "", "an urgent message cannot be encoded")
            else:
                self.pending.append(FlushBatch(outboxes, messages, set()))

    def take(self) -> list[FlushBatch]:
        """What is pending; then nothing is."""
        taken, self.pending = self.pending, []
        return taken
