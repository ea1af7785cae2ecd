"""A TCP connection to a host, which may have several addresses, under asyncio: the first that answers (RFC 8305).

asyncio has such a race, too. But if that is cancelled, it leaves the socket of a winner to the garbage collector; and
loops of other make, such as uvloop, have none.
"""

import asyncio
import socket
from collections import deque
from itertools import zip_longest
from typing import Any

from fanline.client.shells.ends import most_telling
from fanline.protocol.hosts import is_ip

_NEXT_SECONDS = 0.25
"""When the next address is tried beside those that have not answered: RFC 8305 section 5."""
_Address = tuple[int, int, int, str, Any]
"""As getaddrinfo returns it."""
_Attempt = asyncio.Task[socket.socket]


async def connect(host: str, port: int) -> socket.socket:
    """Raises OSError: what says most of what the addresses have answered."""
    addresses, attempts = deque(_alternated(await _look_up(host, port))), list[_Attempt]()
    try:
        while addresses or not all(each.done() for each in attempts):
            if addresses:
                attempts.append(asyncio.ensure_future(_connect_to(addresses.popleft())))
            if (winner := await _wait(attempts, _NEXT_SECONDS if addresses else None)) is not None:
                attempts.remove(winner)
                return winner.result()
    except asyncio.CancelledError:
        await asyncio.wait(_give_up(attempts))
        raise
    finally:
        _give_up(attempts)
    raise most_telling([error for each in attempts if (error := each.exception()) is not None])


async def _wait(attempts: list[_Attempt], seconds: float | None) -> _Attempt | None:
    """The attempt that has connected; None once another one has failed, or `seconds` seconds have passed."""
    running = [each for each in attempts if not each.done()]
    done, _ = await asyncio.wait(running, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    return next((each for each in done if each.exception() is None), None)


async def _connect_to(address: _Address) -> socket.socket:
    family, kind, protocol, _, where = address
    connection = socket.socket(family, kind, protocol)
    try:
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, where)
    except BaseException:
        connection.close()
        raise
    return connection


def _give_up(attempts: list[_Attempt]) -> list[_Attempt]:
    """Every attempt ends without a socket, also one that is connected already and has not been looked at."""
    for attempt in attempts:
        attempt.cancel()
        attempt.add_done_callback(_close)
    return attempts


def _close(attempt: _Attempt) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


async def _look_up(host: str, port: int) -> list[_Address]:
    if is_ip(host):  # no need for the thread that looks up names
        return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    return list(await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM))


def _alternated(addresses: list[_Address]) -> list[_Address]:
    """One of each family after the other, in the order of getaddrinfo: RFC 8305 section 4."""
    families: dict[int, list[_Address]] = {}
    for address in addresses:
        families.setdefault(address[0], []).append(address)
    return [address for row in zip_longest(*families.values()) for address in row if address is not None]
