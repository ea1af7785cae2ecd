"""The address of a client, which may be behind proxies, and lists of networks.

A proxy adds the address that it was reached from to `X-Forwarded-For`, at the end; what stands before it was sent by
the client and may be invented. So the client is the last address that is not one of our own proxies.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Annotated

from msgspec import Meta

NetworkName = Annotated[str, Meta(max_length=50, description="addresses or networks like 10.0.0.0/8")]
_Address = IPv4Address | IPv6Address
_MAX_LENGTH = 100
"""Of an address with brackets, zone and port."""


class Networks:
    """A list of networks. Raises ValueError, whose text is the invalid name."""

    def __init__(self, names: Iterable[str]) -> None:
        self._networks = tuple(_network(name) for name in names)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def __contains__(self, address: str) -> bool:
        read = read_address(address)
        return read is not None and any(read in network for network in self._networks)


def client_address(peer: str, headers: Mapping[str, str], proxies: Networks) -> str:
    """The address of the client behind a connection from `peer`; `proxies`: those whose word counts."""
    address = peer
    for named in reversed(headers.get("x-forwarded-for", "").split(",")):
        if address not in proxies:
            return address
        read = read_address(named.strip())
        if read is None:
            return address
        address = str(read)
    return address


def is_loopback(address: str) -> bool:
    """Whether an address is of this machine. A name is not one."""
    read = read_address(address)
    return read is not None and read.is_loopback


def read_address(text: str) -> _Address | None:
    """An address, also with a port or a zone; IPv4 that is written as IPv6 is IPv4. None for a text that is not an
    address.
    """
    return _read(text) if len(text) <= _MAX_LENGTH else None


@lru_cache(maxsize=4096)  # of texts that clients may have written: only short ones get here
def _read(text: str) -> _Address | None:
    try:
        read = ip_address(_without_port(text).partition("%")[0])
    except ValueError:
        return None
    mapped = read.ipv4_mapped if isinstance(read, IPv6Address) else None
    return mapped or read


def _without_port(text: str) -> str:
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


def _network(name: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(name, strict=False)
    except ValueError:
        raise ValueError(name) from None
