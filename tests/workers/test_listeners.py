"""Listening sockets of the slots."""

import socket

import pytest

from fanline.workers.errors import ServeError
from fanline.workers.supervision.listeners import open_listeners, websocket_url


def test_all_slots_listen_on_the_one_port_that_was_free() -> None:
    with open_listeners("127.0.0.1", 0, 3) as listeners:
        assert len({listener.getsockname() for listener in listeners}) == 1
        assert listeners[0].getsockname()[1] != 0


def test_connections_spread_over_all_slots() -> None:
    with open_listeners("127.0.0.1", 0, 2) as listeners:
        address = listeners[0].getsockname()
        clients = [socket.create_connection(address) for _ in range(64)]
        accepted = [_accept_all(listener) for listener in listeners]
        assert sum(accepted) == 64
        assert min(accepted) > 0
        for client in clients:
            client.close()


def _accept_all(listener: socket.socket) -> int:
    listener.setblocking(False)
    count = 0
    while True:
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


def test_a_second_server_is_refused_although_the_kernel_would_share_the_port() -> None:
    with open_listeners("127.0.0.1", 0, 2) as listeners:
        port = listeners[0].getsockname()[1]
        with pytest.raises(ServeError, match=rf"port {port} .*in use.*--port"), open_listeners("127.0.0.1", port, 2):
            pass


def test_a_port_can_be_listened_on_again_at_once_after_connections_were_served() -> None:
    with open_listeners("127.0.0.1", 0, 1) as listeners:
        address = listeners[0].getsockname()
        with socket.create_connection(address) as client:
            listeners[0].accept()[0].close()  # the server closes first: its side stays in TIME_WAIT
            assert client.recv(1) == b""
    with open_listeners(address[0], address[1], 1) as listeners:
        assert listeners[0].getsockname() == address


def test_the_url_shows_tls_and_has_an_ipv6_host_in_brackets() -> None:
    with open_listeners("::1", 0, 2) as listeners:
        port = listeners[1].getsockname()[1]
        assert websocket_url(listeners[0], tls=False) == f"ws://[::1]:{port}/ws"
        assert websocket_url(listeners[0], tls=True) == f"wss://[::1]:{port}/ws"


def test_a_host_of_another_machine_is_one_sentence() -> None:
    with pytest.raises(ServeError, match=r"cannot listen on 192\.0\.2\.1 port 0: .*--host"):
        open_listeners("192.0.2.1", 0, 1).__enter__()
