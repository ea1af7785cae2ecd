"""A process of its own: clients who have nothing to do with presence, and how long their messages take.

Each line on stdin is a number of seconds, in which every 5 ms a message is published by one client and read by the
others; each line on stdout the milliseconds that they took.
"""

import select
import sys
import time
from contextlib import ExitStack

import msgspec

from fanline.loadtest.websocket_client import WebSocket
from fanline.protocol.envelope import Envelope, MessageType, encode_json
from fanline.protocol.websocket.frames import Opcode

_EVERY_SECONDS = 0.005
_CHANNEL = "load:bystanders"
_READERS = 8  # on all workers, as a rule
_LAST_SECONDS = 1.0


class _Message(msgspec.Struct):
    t: str
    d: object = None


_decode = msgspec.json.Decoder(_Message).decode


def main(url: str) -> None:
    with ExitStack() as stack:
        clients = []
        for _ in range(1 + _READERS):
            client = WebSocket(url, "fanline.v1.json", 10.0)
            stack.callback(client.close)
            clients.append(client)
        publisher, *readers = clients
        for reader in readers:
            reader.send(Opcode.TEXT, encode_json(Envelope(MessageType.SUB, channel=_CHANNEL, id="sub")))
        time.sleep(_LAST_SECONDS)
        print("{}", flush=True)  # noqa: T201  # ready
        for line in sys.stdin:
            took = _measure(publisher, readers, float(line))
            print(msgspec.json.encode(took).decode(), flush=True)  # noqa: T201


def _measure(publisher: WebSocket, readers: list[WebSocket], seconds: float) -> list[float]:
    took, files = list[float](), {reader.fileno(): reader for reader in readers}
    begun = due = time.perf_counter()
    while (now := time.perf_counter()) < begun + seconds + _LAST_SECONDS:
        if now >= due and now < begun + seconds:
            message = Envelope(MessageType.PUB, channel=_CHANNEL, data=time.perf_counter())
            publisher.send(Opcode.TEXT, encode_json(message))
            due += _EVERY_SECONDS
        for file in select.select(files, [], [], max(0.0, min(due - now, _EVERY_SECONDS)))[0]:
            for received in files[file].receive(0):
                read = _decode(received.payload)
                if read.t == MessageType.PUB and isinstance(read.d, float):
                    took.append((time.perf_counter() - read.d) * 1000)
    return took


if __name__ == "__main__":
    main(sys.argv[1])
