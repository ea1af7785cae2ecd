"""Networks that lose and delay packets, and networks that break connections."""

import fcntl
import os
import random
import struct
import subprocess
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tests.faults.fault import SkippedError, Stage, settings
from tests.support.faults.fault_proxy import FaultProxy, Weather, running_proxy
from tests.support.servers.serve import Serve, running_serve

_DEVICE = "lossy"
_FAR_SIDE = "127.77.0.2"
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 1, 0x1000
_SETUP = f"""\
ip link set {_DEVICE} up
ip route del local 127.0.0.0/8 table local
ip route add local 127.0.0.0/24 dev lo table local src 127.0.0.1
sysctl -qw net.ipv4.conf.all.route_localnet=1
ip route add {_FAR_SIDE} dev {_DEVICE} src 127.0.0.1
"""
_RAIN_SECONDS = 12.0


class LossyLink:
    """A link between clients and server on which IP packets come late, and some never. The kernel's TCP is on both
    sides of it, as with tc's netem, which many kernels lack.

    It is a tun device that returns each packet with source and destination exchanged: to a client, the server seems to
    be on the far side; to the server, the client. (Checksums do not change.) NATS is reached without it. Needs a
    network namespace.
    """

    def __init__(self, loss: float, delay: float) -> None:
        self._loss = loss
        self._delay = delay
        self._losing = False
        self.carried = self.lost = 0

    @asynccontextmanager
    async def server(self, directory: Path, seed: int) -> AsyncIterator[Serve]:
        """A server whose clients are beyond the link."""
        device = _open_device()
        try:
            async with running_serve(workers=2, extra_args=settings(directory)) as serve:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._carry, device, random.Random(f"{seed}/link"))
                    serve.where = (_FAR_SIDE, serve.port)
                    yield serve
                    nursery.cancel_scope.cancel()
        finally:
            os.close(device)

    async def lose(self, stage: Stage) -> None:
        """Lose packets for some seconds; they come late all the time."""
        self._losing = True
        await trio.sleep(_RAIN_SECONDS)
        self._losing = False
        if not self.lost:
            stage.crowd.complaints.append(f"none of {self.carried} packets was lost: the link is not in use")

    async def _carry(self, device: int, chance: random.Random) -> None:
        late = deque[tuple[float, bytes]]()
        while True:
            until = late[0][0] if late else trio.current_time() + 1
            with trio.move_on_at(until):
                await trio.lowlevel.wait_readable(device)
                self._take(device, chance, late)
            while late and late[0][0] <= trio.current_time():
                os.write(device, late.popleft()[1])

    def _take(self, device: int, chance: random.Random, late: deque[tuple[float, bytes]]) -> None:
        packet = os.read(device, 65536)
        if packet[0] >> 4 != 4:
            return
        if self._losing and chance.random() < self._loss:
            self.lost += 1
            return
        self.carried += 1
        late.append((trio.current_time() + self._delay, packet[:12] + packet[16:20] + packet[12:16] + packet[20:]))


def _open_device() -> int:
    """A tun device, and the routes that lead to it."""
    try:
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", _DEVICE.encode(), _IFF_TUN | _IFF_NO_PI))
    except OSError as error:
        raise SkippedError(f"no tun device: {error.strerror}; the row `network` has the fault proxy") from None
    done = subprocess.run(["sh", "-ec", _SETUP], capture_output=True, text=True, check=False)
    if done.returncode:
        os.close(device)
        raise SkippedError(f"the link cannot be set up: {done.stderr.strip()}")
    return device


class BreakingNetwork:
    """A proxy between clients and server that resets, ends, stalls and refuses connections."""

    def __init__(self) -> None:
        self._proxy: FaultProxy | None = None

    @asynccontextmanager
    async def server(self, directory: Path, seed: int) -> AsyncIterator[Serve]:
        """A server whose clients are beyond the proxy."""
        async with running_serve(workers=2, extra_args=settings(directory)) as serve:
            async with running_proxy(serve.where, seed) as self._proxy:
                serve.where = ("127.0.0.1", self._proxy.port)
                yield serve

    async def storm(self, stage: Stage) -> None:
        """Break every connection, again and again, for some seconds."""
        assert self._proxy is not None
        self._proxy.weather = Weather(life=(0.3, 2.5), away=(0.1, 1.0))
        self._proxy.cut_all()
        await trio.sleep(_RAIN_SECONDS)
        self._proxy.weather = None
        self._proxy.cut_all()
        print(f"  {self._proxy.faults.total()} connections broken, {self._proxy.refused} refused", flush=True)
        if not self._proxy.faults:
            stage.crowd.complaints.append("no connection was broken: the proxy is not in use")
