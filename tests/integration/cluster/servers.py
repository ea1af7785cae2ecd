"""Two servers of two workers each on one NATS, with the same settings: a cluster."""

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import httpx
import trio

from tests.support.nats.server import NatsServer, running_nats
from tests.support.raw_client import RawClient
from tests.support.servers.serve import Serve, children_of, running_serve
from tests.support.tasks.on_worker import connect_to

API = "/api/v1/websocket"
LOOK_SECONDS = 0.2
"""Between two tries: a control process yields to all others on its machine, and starts the later for it."""
PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients that speak no TLS: httpx would load all certificates of the machine for each of them."""
FAST = {"FANLINE_CONTROL": "true", "FANLINE_MONITOR_SAMPLE": "0.5", "FANLINE_MONITOR_INTERVAL": "0.5"}


class Pair(NamedTuple):
    """A cluster. `leader` and `other` are its servers by whose control process leads."""

    nats: NatsServer
    servers: tuple[Serve, Serve]

    @asynccontextmanager
    async def on_each_worker(self) -> AsyncIterator[list[RawClient]]:
        """Four clients, one on each worker."""
        async with AsyncExitStack() as stack:
            yield [
                await stack.enter_async_context(connect_to(serve, pid))
                for serve in self.servers
                for pid in serve.worker_pids()
            ]


def process_of(serve: Serve, kind: str) -> int | None:
    """The process of a server that is `control` or `handlers`."""
    return next((pid for pid, command in children_of(serve.pid) if f"workers.{kind}" in command), None)


def name_of(serve: Serve) -> str:
    """What the cluster calls a server."""
    return f"{Path('/proc/sys/kernel/hostname').read_text().strip()}/{serve.pid}"


async def call(serve: Serve, path: str, body: Any = None, *, key: str = "", method: str = "") -> httpx.Response:
    """One call of the management API, by this server."""
    url = f"http://127.0.0.1:{serve.port}{path if path == '/metrics' else API + path}"
    async with httpx.AsyncClient(timeout=30, verify=PLAIN) as client:
        headers = {"X-API-Key": key} if key else {}
        return await client.request(method or ("GET" if body is None else "POST"), url, json=body, headers=headers)


async def call_by_owner(serve: Serve, path: str) -> httpx.Response:
    """One call by the user who runs the server, whatever its workers do."""
    transport = httpx.AsyncHTTPTransport(uds=str(serve.state_directory / f"control-{serve.port}.sock"))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=30) as client:
        return await client.get(API + path)


async def called(serve: Serve, path: str, body: Any = None) -> Any:
    """The body of its answer, as soon as its control process gives one."""
    while True:
        try:
            answer = await call(serve, path, body)
        except httpx.HTTPError:
            await trio.sleep(LOOK_SECONDS)
            continue
        if answer.status_code != 503:
            assert answer.status_code == 200, answer.text
            return answer.json()
        await trio.sleep(LOOK_SECONDS)


@asynccontextmanager
async def two_servers(settings: str = "", app: str = "", env: Mapping[str, str] | None = None) -> AsyncIterator[Pair]:
    """Both control processes answer about all four workers. `app`: the text of a module `app`."""
    with TemporaryDirectory(prefix="fanline-app-") as name:
        (Path(name) / "fanline.toml").write_text(settings)
        (Path(name) / "app.py").write_text(app)
        async with running_nats() as nats:
            one, other = (
                running_serve(2, ("--nats", nats.url), env=FAST | dict(env or {}), prefix=("env", "-C", name))
                for _ in range(2)
            )
            async with one as first, other as second:
                for serve in (first, second):
                    while (await called(serve, "/stats"))["workers"]["answered"] < 4:
                        await trio.sleep(LOOK_SECONDS)
                yield Pair(nats, (first, second))
