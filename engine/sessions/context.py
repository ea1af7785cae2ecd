"""What the connections of one worker share."""

from typing import NamedTuple

import trio

from fanline.engine.bus.interface import Bus
from fanline.engine.channels.hub import Hub
from fanline.engine.channels.recovery import Recovery
from fanline.engine.counters import Counters
from fanline.engine.namespaces import Namespaces
from fanline.engine.sending.outbox import OutboxShared
from fanline.engine.sessions.identity import Access
from fanline.engine.sessions.store import SessionStore
from fanline.engine.settings import EngineSettings


class Context(NamedTuple):
    settings: EngineSettings
    access: Access
    bus: Bus
    hub: Hub
    recovery: Recovery
    namespaces: Namespaces
    session_store: SessionStore
    counters: Counters
    outboxes: OutboxShared
    nursery: trio.Nursery
    """For what goes on while a connection is served further."""
