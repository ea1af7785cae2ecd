"""A TCP proxy on loopback that breaks connections the way networks do: resets, early ends, silence, refusals.

It tells clients apart by their source address (any of 127.0.0.0/8). Each address has its own generator, seeded with the
proxy's seed and the address, so what one client goes through does not depend on the others.
"""

import math
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import StrEnum
from typing import NamedTuple

import trio

_CHUNK = 65536
_LAST_CHUNK_SECONDS = 0.05
_NO_LINGER = struct.pack("ii", 1, 0)
_BROKEN = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


class Fate(StrEnum):
    """How a connection ends."""

    RESET = "reset"  # RST to both sides
    END = "end"  # FIN to both sides, usually inside a frame
    VANISH = "vanish"  # RST to the client; the server hears nothing for a while
    STALL = "stall"  # silence in both directions, then RST
    BLINK = "blink"  # RST to both sides, and the client may connect again at once


class Weather(NamedTuple):
    """The faults that connections meet without being asked for; times in seconds."""

    life: tuple[float, float] = (1.5, 4.5)
    """Time from the accept to the fault: shortest, longest."""
    away: tuple[float, float] = (0.2, 2.0)
    """Time for which the client's address is refused afterwards."""
    fates: tuple[Fate, ...] = tuple(Fate)


class FaultProxy:
    """Created by `running_proxy`. With `weather` set to None, connections accepted from then on meet no faults."""

    def __init__(self, target: tuple[str, int], port: int, seed: int, weather: Weather | None) -> None:
        self.port = port
        self.weather = weather
        self.faults: Counter[Fate] = Counter()
        self.refused = 0
        self._target = target
        self._seed = seed
        self._chances: dict[str, random.Random] = {}
        self._refused_until: dict[str, float] = {}
        self._open: dict[trio.CancelScope, _Link] = {}

    def cut_all(self) -> None:
        """Reset every connection now."""
        for scope in tuple(self._open):
            scope.cancel()

    def end_after(self, size: int) -> None:
        """End every open connection (FIN) once `size` more bytes from the server have been passed on."""
        for link in self._open.values():
            link.bytes_left = size

    def refuse(self, address: str, seconds: float) -> None:
        """Reset all connections from an address for the next `seconds` seconds."""
        self._refused_until[address] = trio.current_time() + seconds

    async def handle(self, client: trio.SocketStream) -> None:
        """Serve one connection until it ends."""
        with suppress(*_BROKEN):
            address: str = client.socket.getpeername()[0]
            if trio.current_time() < self._refused_until.get(address, 0.0):
                self.refused += 1
                await _reset(client)
                return
            link = _Link(client, await trio.open_tcp_stream(*self._target), self._chance(address))
            scope = trio.CancelScope()
            self._open[scope] = link
            try:
                with scope:
                    await self._serve(link, address)
            finally:
                del self._open[scope]
                with trio.CancelScope(shield=True):
                    await link.close(reset=scope.cancelled_caught)

    def _chance(self, address: str) -> random.Random:
        return self._chances.setdefault(address, random.Random(f"{self._seed}/{address}"))

    async def _serve(self, link: "_Link", address: str) -> None:
        weather = self.weather
        if weather is None:
            await link.carry()
            return
        life, away = link.chance.uniform(*weather.life), link.chance.uniform(*weather.away)
        fate = link.chance.choice(weather.fates)
        if fate is Fate.END:
            link.last_chunk_at = trio.current_time() + life
            life += _LAST_CHUNK_SECONDS
        with trio.move_on_after(life) as scope:
            await link.carry()
        if not (scope.cancelled_caught or link.cut_inside):
            return  # one of the sides has ended it
        self.faults[fate] += 1
        if fate not in (Fate.STALL, Fate.BLINK):
            self.refuse(address, away)
        await link.meet(fate, away)


class _Link:
    """Two streams and what is carried between them. Once carrying was cancelled, nothing more may pass: a chunk that
    was read but not sent would leave a hole, which no network does.
    """

    def __init__(self, client: trio.SocketStream, server: trio.SocketStream, chance: random.Random) -> None:
        self.chance = chance
        self.last_chunk_at = math.inf
        """Only a part of the first chunk after this moment is passed on, followed by the end."""
        self.bytes_left: int | None = None
        """How much may still pass from the server before the end; None: no limit."""
        self.cut_inside = False
        self._client = client
        self._server = server

    async def carry(self) -> None:
        """Carry until one side ends the connection."""
        async with trio.open_nursery() as nursery:
            for source, sink in ((self._client, self._server), (self._server, self._client)):
                nursery.start_soon(self._copy, source, sink, nursery.cancel_scope)

    async def meet(self, fate: Fate, seconds: float) -> None:
        if fate is Fate.STALL:
            await trio.sleep(seconds)
        elif fate is Fate.VANISH:
            await _reset(self._client)
            await trio.sleep(seconds)
        await self.close(reset=fate is not Fate.END)

    async def close(self, *, reset: bool) -> None:
        for stream in (self._client, self._server):
            if reset:
                await _reset(stream)
            else:
                await trio.aclose_forcefully(stream)

    async def _copy(self, source: trio.SocketStream, sink: trio.SocketStream, end: trio.CancelScope) -> None:
        with suppress(*_BROKEN):
            while data := await source.receive_some(_CHUNK):
                if trio.current_time() >= self.last_chunk_at:
                    self.cut_inside = True
                    data = data[: self.chance.randrange(len(data))]
                if source is self._server and self.bytes_left is not None:
                    data = data[: self.bytes_left]
                    self.bytes_left -= len(data)
                    self.cut_inside = not self.bytes_left
                await sink.send_all(data)
                if self.cut_inside:
                    break
        end.cancel()


async def _reset(stream: trio.SocketStream) -> None:
    """Close with RST: whatever was not read or sent is lost."""
    with suppress(OSError):
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    await trio.aclose_forcefully(stream)


@asynccontextmanager
async def running_proxy(
    target: tuple[str, int], seed: int, weather: Weather | None = None
) -> AsyncIterator[FaultProxy]:
    """A proxy to `target` until the block ends. Without weather, only the faults that a test asks for happen."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=1024)
    proxy = FaultProxy(target, listener.socket.getsockname()[1], seed, weather)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, proxy.handle, [listener])
        yield proxy
        nursery.cancel_scope.cancel()
