"""Tests run side by side, so a port that is free now must be free until a server listens on it."""

import socket
from pathlib import Path

import pytest

from tests.support.servers.free_port import free_port

pytestmark = pytest.mark.process


def test_a_free_port_is_given_to_no_connection_and_to_nobody_who_asks_for_any_port() -> None:
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    for _ in range(100):
        port = free_port()
        assert port not in range(first, last + 1)
        with socket.create_server(("127.0.0.1", port)):
            pass
