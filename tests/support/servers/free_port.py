"""A port for a server that cannot be given port 0."""

import random
import socket
from contextlib import suppress
from pathlib import Path

_FIRST = 10_000
_chance = random.SystemRandom()  # tests beside this one may have the same seed


def free_port() -> int:
    """One on which nothing listens now. It is none of those that the kernel gives to connections and for port 0: until
    the server listens, one of the tests beside this one might be given it.
    """
    first_given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = _chance.randrange(_FIRST, first_given)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
