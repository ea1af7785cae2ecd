"""A real browser's pages reach the server only from an allowed origin. Skipped without a headless Chromium."""

import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from fanline.engine.settings import EngineSettings
from tests.engine.running import RunningEngine, running_engine

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
SECONDS = 60  # a browser starts slowly on a busy machine

pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"needs one of {', '.join(BROWSERS)} on the PATH")

PAGE = """<!doctype html><script>
const attempt = (url) => new Promise((settle) => {
  const socket = new WebSocket(url, "fanline.v1.json");
  socket.onmessage = (event) => { settle(JSON.parse(event.data).t); socket.close(); };
  socket.onerror = () => settle("refused");
});
attempt(%s).then((outcome) => parent.postMessage(outcome, "*"));
addEventListener("message", (event) => fetch("/outcome", { method: "POST", body: JSON.stringify(event.data) }));
</script>"""
FRAME = '<!doctype html><script>addEventListener("message", (event) => fetch("/outcome", { method: "POST", \
body: JSON.stringify(event.data) }));</script><iframe sandbox="allow-scripts" src="/framed"></iframe>'


class Site:
    """A web site of one page, on a port of its own; the page posts its outcome."""

    def __init__(self, listener: trio.SocketListener) -> None:
        self.listener = listener
        self.port: int = listener.socket.getsockname()[1]
        self.pages: dict[str, str] = {}
        self.sent, self.outcomes = trio.open_memory_channel[Any](10)

    async def serve(self, stream: trio.SocketStream) -> None:
        head, _, body = (await stream.receive_some(65536)).partition(b"\r\n\r\n")
        method, path, *_ = head.decode().split(" ")
        if method == "POST":
            while not body:
                body += await stream.receive_some(65536)
            self.sent.send_nowait(msgspec.json.decode(body))
        page = self.pages.get(path, "")
        answer = (
            f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(page)}\r\nConnection: close\r\n\r\n"
        )
        await stream.send_all((answer + page).encode())
        await stream.aclose()


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        found = Site(listener)
        nursery.start_soon(trio.serve_listeners, found.serve, [listener])
        yield found
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def browser(url: str, profile: Path) -> AsyncIterator[None]:
    """A browser with a page open; evil.example is this machine, as after DNS rebinding."""
    assert BROWSER is not None
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={profile}")
    rules = "--host-resolver-rules=MAP evil.example 127.0.0.1"
    process = await trio.lowlevel.open_process(
        [BROWSER, *flags, rules, "--remote-debugging-port=0", url],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        with trio.CancelScope(shield=True):
            await process.wait()


async def outcome(page: str, target: str, profile: Path, *, origins: tuple[str, ...] = (), framed: bool = False) -> Any:
    """What became of the page's WebSocket: the type of the first message, or "refused". PORT is the page's port, and
    ENGINE the server's.
    """
    with trio.fail_after(SECONDS):
        async with site() as its:
            port = str(its.port)
            settings = EngineSettings(origins=tuple(origin.replace("PORT", port) for origin in origins))
            async with running_engine(settings) as engine:
                script = PAGE % msgspec.json.encode(_url(target, engine)).decode()
                its.pages = {"/": FRAME, "/framed": script} if framed else {"/": script}
                async with browser(page.replace("PORT", port), profile):
                    return await its.outcomes.receive()


def _url(target: str, engine: RunningEngine) -> str:
    return target.replace("ENGINE", str(engine.port))


@pytest.mark.parametrize(
    ("page", "target"),
    [
        pytest.param("http://127.0.0.1:PORT/", "ws://127.0.0.1:ENGINE/ws", id="another-port"),
        pytest.param("http://evil.example:PORT/", "ws://127.0.0.1:ENGINE/ws", id="another-host"),
        pytest.param("http://evil.example:PORT/", "ws://evil.example:ENGINE/ws", id="dns-rebinding"),
    ],
)
async def test_a_page_of_another_origin_cannot_connect(page: str, target: str, tmp_path: Path) -> None:
    assert await outcome(page, target, tmp_path) == "refused"


async def test_a_sandboxed_frame_cannot_connect_even_on_an_allowed_page(tmp_path: Path) -> None:
    page, target = "http://127.0.0.1:PORT/", "ws://127.0.0.1:ENGINE/ws"
    assert await outcome(page, target, tmp_path, origins=("http://127.0.0.1:PORT",), framed=True) == "refused"


async def test_a_page_of_the_setting_origins_connects(tmp_path: Path) -> None:
    page, target = "http://127.0.0.1:PORT/", "ws://127.0.0.1:ENGINE/ws"
    assert await outcome(page, target, tmp_path, origins=("http://127.0.0.1:PORT",)) == "welcome"
