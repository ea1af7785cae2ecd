"""A WebSocket server that sends one subscriber what a test wants, stamped as in loadtest/bench/native/common.h."""

import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress

from fanline.protocol.websocket.frames import FrameReader, Opcode, encode_frame
from fanline.protocol.websocket.handshake import HeadReader, check_upgrade, upgrade_response


def stamped(sequence: int) -> bytes:
    """One message's frame, with text around the stamp."""
    stamp = f"@@{sequence:08d}{time.monotonic_ns() // 1000:016d}"
    return encode_frame(Opcode.TEXT, f'{{"d":"{stamp}xxxx"}}'.encode())


def numbered(sequences: Sequence[int]) -> bytes:
    return b"".join(stamped(sequence) for sequence in sequences)


@contextmanager
def serving(frames: bytes, *, cut: int = 1 << 20) -> Iterator[tuple[int, "Future[None]"]]:
    """A server that confirms one client's subscription and sends it `frames` in pieces of `cut` bytes.

    Yields its port, and a future that is done once the client has read everything or left.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        listener.settimeout(10)
        yield listener.getsockname()[1], pool.submit(_serve, listener, frames, cut)


def _serve(listener: socket.socket, frames: bytes, cut: int) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head, request = HeadReader(), None
        while request is None:
            request = head.feed(connection.recv(4096))
        connection.sendall(upgrade_response(check_upgrade(request), None))
        reader = FrameReader(4096)
        _wait_for(Opcode.TEXT, connection, reader, request.rest)
        connection.sendall(encode_frame(Opcode.TEXT, b'{"t":"ok"}'))
        with suppress(ConnectionError):  # a client that has all it wants leaves before the ping
            for start in range(0, len(frames), cut):
                connection.sendall(frames[start : start + cut])
            connection.sendall(encode_frame(Opcode.PING, b"read?"))
            _wait_for(Opcode.PONG, connection, reader, b"")


def _wait_for(opcode: Opcode, connection: socket.socket, reader: FrameReader, data: bytes) -> None:
    while opcode not in {message.opcode for message in reader.feed(data)}:
        data = connection.recv(4096)
        if not data:
            return
