"""A Redis for tests, which other processes can reach, too."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from fakeredis import TcpFakeServer
from fakeredis._commands import command
from fakeredis._socket import FakeSocket
from fakeredis.model import ClientInfo


def _client_info(info: ClientInfo) -> bytes:
    """As Redis has it: without spaces in a value, such as an address, that is a tuple in the fake one."""
    return " ".join(f"{key}={str(value).replace(' ', '')}" for key, value in info.items()).encode()


@command(name="INFO", fixed=(), repeat=(bytes,))
def _info(socket: FakeSocket, *sections: bytes) -> bytes:
    """Which the fake one does not know, and RQ asks for."""
    return b"redis_version:7.4.0\r\nused_memory_human:1M\r\nconnected_clients:1\r\n"


FakeSocket._info = _info  # type: ignore[attr-defined]  # not in the class yet


@contextmanager
def fake_redis() -> Iterator[str]:
    """Its URL. It runs in a thread of this process."""
    server = TcpFakeServer(("127.0.0.1", 0), server_type="redis")
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        with patch.object(ClientInfo, "as_bytes", _client_info):
            yield f"redis://127.0.0.1:{server.server_address[1]}/0"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
