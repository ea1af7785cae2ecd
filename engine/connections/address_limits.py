"""What one address may take of a worker: connections, and handshakes a second. This machine's own is not limited, for
it may be a proxy's, and neither are those of the trusted proxies themselves.

A request of plain HTTP counts as a handshake does, until the control process says that it knows who has asked: then it
is taken off the account, so that a backend with a key may call as often as it likes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from fanline.engine.limits import Limit, LimitHits
from fanline.engine.settings import EngineSettings
from fanline.protocol.errors import HttpError
from fanline.protocol.websocket.addresses import Networks, client_address, is_loopback
from fanline.protocol.websocket.handshake import Request

_BURST_SECONDS = 5.0  # of handshakes that may come at once: a page with several tabs comes back at once
_REMEMBERED = 10_000  # addresses whose handshakes are counted; beyond it those that have been quiet are forgotten
_AGAIN = (("Retry-After", "5"),)


class _Handshakes(NamedTuple):
    """How many handshakes of an address are on its account, as of a time (Trio's)."""

    number: float
    time: float


class AddressLimits:
    """The limits of one worker. `clock`: seconds of a clock that never goes back."""

    def __init__(self, settings: EngineSettings, hits: LimitHits, clock: Callable[[], float]) -> None:
        self._allowed = Networks(settings.allow_addresses)
        self._denied = Networks(settings.deny_addresses)
        self._proxies = Networks(settings.trusted_proxies)
        self._most = settings.max_connections_per_address
        self._per_second = settings.handshakes_per_address
        self._active = bool(self._allowed or self._denied or self._most or self._per_second)
        self._hits = hits
        self._clock = clock
        self._open: dict[str, int] = {}
        self._recent: dict[str, _Handshakes] = {}

    def check(self, peer: str, request: Request) -> str | None:
        """The address of a client, if its connections are to be `counted`. HttpError 403 or 429 if it is refused,
        whatever it has open.

        `peer`: the address from which its connection comes, a proxy's perhaps.
        """
        if not self._active:
            return None
        address = self.address_of(peer, request)
        self._check_listed(address)
        if is_loopback(address) or address in self._proxies:
            return None
        if self._per_second and not self._pays(address):
            self._hits.hit(Limit.ADDRESS_HANDSHAKES, f"{address} has sent too many")
            raise HttpError(429, f"more than {self._per_second:g} handshakes a second from this address", _AGAIN)
        return address if self._most else None

    def address_of(self, peer: str, request: Request) -> str:
        """The address of a client whose connection comes from `peer`: what the trusted proxies say, if it comes through
        them.
        """
        return client_address(peer, request.headers, self._proxies)

    def _check_listed(self, address: str) -> None:
        if address in self._denied or (self._allowed and address not in self._allowed):
            self._hits.hit(Limit.ADDRESSES, f"{address} may not connect")
            raise HttpError(403, "clients from this address may not connect")

    def check_open(self, address: str) -> None:
        """HttpError 429 if no further connection of an address that is `counted` may be open."""
        if self._open.get(address, 0) >= self._most:
            self._hits.hit(Limit.ADDRESS_CONNECTIONS, f"{address} has {self._most}")
            raise HttpError(429, f"{self._most} connections of this address are open, and no more are allowed", _AGAIN)

    @contextmanager
    def counted(self, address: str) -> Iterator[None]:
        """Count a connection of this address while it is open."""
        self._open[address] = self._open.get(address, 0) + 1
        try:
            yield
        finally:
            self._open[address] -= 1
            if not self._open[address]:
                del self._open[address]

    def _pays(self, address: str) -> bool:
        """Put a handshake on the address's account, which empties by `per_second`; False if it is full."""
        now = self._clock()
        known = self._recent.get(address, _Handshakes(0.0, now))
        count = max(0.0, known.number - (now - known.time) * self._per_second)
        if count + 1 > self._per_second * _BURST_SECONDS:
            return False
        if len(self._recent) >= _REMEMBERED:
            self._forget(now)
        self._recent[address] = _Handshakes(count + 1, now)
        return True

    def give_back(self, address: str) -> None:
        """Take one off the account of an address again: it was a request of a known caller."""
        known = self._recent.get(address)
        if known is not None:
            self._recent[address] = known._replace(number=max(0.0, known.number - 1))

    def _forget(self, now: float) -> None:
        """Forget the accounts that are empty by now; if none is, all: a flood of addresses must cost no memory."""
        self._recent = {
            address: known
            for address, known in self._recent.items()
            if known.number > (now - known.time) * self._per_second
        }
        if len(self._recent) >= _REMEMBERED:
            self._recent.clear()
