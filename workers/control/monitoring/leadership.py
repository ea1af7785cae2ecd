"""Leadership: one control process of the cluster speaks for all, the holder of a lease."""

import trio

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.interface import Bus
from fanline.engine.tasks.monitor.lease import RENEW_SECONDS, Lease, LeaseBoard
from fanline.protocol.nats.names import Bucket

DUTY = "monitor"
_LOOK_SECONDS = RENEW_SECONDS / 2
_RELEASE_SECONDS = 0.5


class Leadership:
    """`holder`: the id of this process."""

    def __init__(self, bus: Bus, holder: str) -> None:
        self._bus = bus
        self._holder = holder
        self._board = LeaseBoard()
        self._lease: Lease | None = None

    @property
    def leads(self) -> bool:
        """Whether no other process can speak for the cluster now."""
        return self._lease is not None and self._lease.valid

    def check(self) -> None:
        """BusError if another process may lead by now: one that was frozen must not report what it saw before. Call it
        right before something is sent or stored, with no await in between.
        """
        if not self.leads:
            raise BusError("another control process may speak for the cluster by now")

    async def run(self) -> None:
        """Take the lease whenever it is free, and keep it; give it back when cancelled."""
        try:
            while True:
                try:
                    await self._keep_or_take()
                except BusError:
                    self._board.forget()
                await trio.sleep(_LOOK_SECONDS)
        finally:
            with trio.move_on_after(_RELEASE_SECONDS, shield=True):
                await self._release()

    async def _keep_or_take(self) -> None:
        if self._lease is not None:
            if await self._lease.renew():
                return
            self._lease = None
        entry = await self._bus.kv_get(Bucket.LEASES, DUTY)
        self._board.see({} if entry is None else {DUTY: entry})
        if entry is None or not self._board.holder(DUTY) or self._board.is_expired(DUTY):
            lease = Lease(self._bus, DUTY, self._holder)
            if await lease.take(entry):
                self._lease = lease

    async def _release(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None and lease.valid:
            try:
                await lease.release()
            except BusError:
                return
