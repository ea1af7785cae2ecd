"""What the connections of one worker share."""

from typing import NamedTuple

import trio

from engine.access import Access
from engine.bus import Bus
from engine.counters import Counters
from engine.hub import Hub
from engine.mender import Mender
from engine.namespaces import Namespaces
from engine.notebook import Notebook
from engine.outbox import OutboxShared
from engine.settings import EngineSettings


class Context(NamedTuple):
    settings: EngineSettings
    access: Access
    bus: Bus
    hub: Hub
    mender: Mender
    namespaces: Namespaces
    notebook: Notebook
    counters: Counters
    outboxes: OutboxShared
    nursery: trio.Nursery
    """For what goes on while a connection is served further."""
