"""TLS and compression against independent clients: the same outbox, the same promises."""

import subprocess
import sys
from pathlib import Path

import pytest
import trio
from trio_websocket import connect_websocket_url

from fanline.engine.settings import EngineSettings
from fanline.engine.sockets.transport import load_tls
from fanline.protocol.websocket.frames import FrameReader
from tests.engine.running import running_engine
from tests.support.raw_client import RawClient, connect_raw, upgrade_request
from tests.support.servers.certificates import Certificates

# `websockets` negotiates compression by default; it runs on asyncio, hence in a process of its own.
WEBSOCKETS_CLIENT = """
import sys
from websockets.sync.client import connect
with connect(sys.argv[1], subprotocols=["fanline.v1.json"]) as socket:
    assert "permessage-deflate" in socket.response.headers["Sec-WebSocket-Extensions"], socket.response.headers
    socket.recv()
    socket.send('{"t":"sub","c":"news:all","i":"1"}')
    print(socket.recv(), flush=True)
    for _ in range(3):
        message = socket.recv()
        print(len(message), message[:40], flush=True)
    socket.send('{"t":"ping","i":"2","d":"' + "y" * 5000 + '"}')
    print(len(socket.recv()), flush=True)
"""


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


async def test_an_independent_client_gets_compressed_messages_whole() -> None:  # S3-40
    with trio.fail_after(20):
        async with running_engine(EngineSettings(compression=True)) as engine:
            url = f"ws://127.0.0.1:{engine.port}/ws"
            client = await trio.lowlevel.open_process(
                [sys.executable, "-c", WEBSOCKETS_CLIENT, url], stdout=subprocess.PIPE
            )
            assert client.stdout is not None
            async with client.stdout as lines:
                output = b""
                while b'"ok"' not in output:
                    output += await lines.receive_some()
                for size in (10, 1000, 60_000):
                    await engine.bus.publish("news:all", b'"' + b"x" * size + b'"')
                async for chunk in lines:
                    output += chunk
            assert await client.wait() == 0
            sizes = [int(line.split()[0]) for line in output.splitlines()[1:]]
            assert [size // 1000 for size in sizes] == [0, 1, 60, 5]


async def test_compression_is_not_offered_unless_asked_for_by_both_sides() -> None:  # S3-40
    offer = {"Sec_WebSocket_Extensions": "permessage-deflate"}
    with trio.fail_after(20):
        for setting, headers, expected in ((False, offer, False), (True, {}, False), (True, offer, True)):
            async with running_engine(EngineSettings(compression=setting)) as engine:
                async with connect_raw(engine.host, engine.port) as client:
                    await client.send(upgrade_request(**headers))
                    assert (b"permessage-deflate" in await client.stream.receive_some()) is expected


async def test_a_compressed_message_is_the_same_bytes_for_all_members() -> None:
    with trio.fail_after(20):
        async with running_engine(EngineSettings(compression=True)) as engine, trio.open_nursery() as nursery:
            streams: list[bytes] = []

            async def listen(*, task_status: trio.TaskStatus[None]) -> None:
                async with connect_raw(engine.host, engine.port) as client:
                    await client.upgrade(Sec_WebSocket_Extensions="permessage-deflate")
                    assert (await client.json())["t"] == "welcome"
                    assert (await client.ask({"t": "sub", "c": "news:all", "i": "1"}))["t"] == "ok"
                    task_status.started()
                    streams.append(await client.stream.receive_some())

            for _ in range(3):
                await nursery.start(listen)
            await engine.bus.publish("news:all", b'"' + b"x" * 3000 + b'"')
        assert len(set(streams)) == 1
        (message,) = FrameReader(10_000, from_client=False, deflated=True).feed(streams[0])
        assert len(streams[0]) < 200 < 3000 < len(message.payload)


async def test_tls_serves_an_independent_client_and_a_large_backlog(certificates: Certificates) -> None:  # S5-51
    settings = EngineSettings(ssl_certfile=certificates.cert, ssl_keyfile=certificates.key, outbox_bytes=8_000_000)
    with trio.fail_after(30):
        async with running_engine(settings, send_buffer=8192) as engine, trio.open_nursery() as nursery:
            url = f"wss://localhost:{engine.port}/ws"
            socket = await connect_websocket_url(
                nursery, url, certificates.client_context, subprotocols=["fanline.v1.json"]
            )
            await socket.get_message()
            await socket.send_message('{"t":"sub","c":"news:all","i":"1"}')
            assert '"ok"' in await socket.get_message()
            for number in range(100):
                await engine.bus.publish("news:all", b'"%d %s"' % (number, b"x" * 30_000))
            received = [await socket.get_message() for _ in range(100)]
            assert [int(str(message).split('"d":"')[1].split()[0]) for message in received] == list(range(100))
            await socket.send_message('{"t":"ping","i":"2","d":"' + "y" * 60_000 + '"}')  # several TLS records in
            assert '"i":"2"' in await socket.get_message()
            await socket.aclose()


async def test_plain_text_on_a_tls_port_ends_that_connection_only(certificates: Certificates) -> None:
    settings = EngineSettings(ssl_certfile=certificates.cert, ssl_keyfile=certificates.key, handshake_timeout=1)
    with trio.fail_after(20):
        async with running_engine(settings) as engine:
            async with connect_raw(engine.host, engine.port) as client:
                await client.send(upgrade_request())
                assert b"HTTP/1.1 101" not in await read_all(client)
            plain = await trio.open_tcp_stream(engine.host, engine.port)
            async with trio.SSLStream(plain, certificates.client_context, server_hostname="localhost") as secure:
                await secure.send_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert (await secure.receive_some()).startswith(b"HTTP/1.1 200 OK")


async def read_all(client: RawClient) -> bytes:
    data = b""
    try:
        while chunk := await client.stream.receive_some():
            data += chunk
    except trio.BrokenResourceError:
        pass
    return data


def test_unusable_tls_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"cannot use the TLS files /nowhere\.pem and no key file: "):
        load_tls(EngineSettings(ssl_certfile="/nowhere.pem"))
