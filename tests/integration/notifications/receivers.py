"""A real SMTP server, a real HTTP service, and a server that sends notifications to both."""

import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import httpx
import trio

from tests.integration.notifications.mail_server import MailServer, mail_server
from tests.support.servers.posts import answer_post, read_post
from tests.support.servers.serve import Serve, children_of, running_serve

API = "/api/v1/websocket"
SETTINGS = """
[notifications]
email = ["mailto://robot:hidden-password@127.0.0.1:{smtp}?from=robot@example.com&{email}&to={{email}}&format=text"]
push = ["json://127.0.0.1:{http}/{{push}}"]
per_hour = 0
give_up = {give_up}
{more}
"""


class Service:
    """An HTTP service that takes notifications. `answer(title)`: its status; None: the connection dies."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, dict[str, Any]]] = []
        """Path and body of what was answered with success."""
        self.answer: Callable[[str], int | None] = lambda title: 200
        self.seconds = 0.0
        """For which it thinks."""

    def titles(self) -> list[str]:
        return [body["title"] for _, body in self.taken]

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            if (post := await read_post(stream)) is None:
                return
            path, _, body = post
            said = json.loads(body)
            await trio.sleep(self.seconds)
            status = self.answer(said["title"])
            if status is None:
                return
            if status == 200:
                self.taken.append((path, said))
            await answer_post(stream, status)


class Notified(NamedTuple):
    """A server, and those that it sends to."""

    serve: Serve
    mail: MailServer
    service: Service

    def control_pid(self) -> int | None:
        found = [pid for pid, command in children_of(self.serve.pid) if "workers.control" in command]
        return found[0] if found else None

    async def api(self, method: str, path: str, body: Any = None) -> Any:
        """The body of a call's answer, which is a success, as soon as there is one."""
        while True:
            async with httpx.AsyncClient(timeout=30) as client:
                url = f"http://127.0.0.1:{self.serve.port}{API}{path}"
                answer = await client.request(method, url, json=body)
            if answer.status_code != 503:
                assert answer.status_code == 200, answer.text
                return answer.json()
            await trio.sleep(0.1)


@asynccontextmanager
async def notifying(
    give_up: float = 600,
    more: str = "",
    workers: int = 1,
    email: str = "mode=insecure",
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Notified]:
    """`more`: settings; `email`: of the URL for e-mail; `tls`: what the SMTP server offers STARTTLS with."""
    service = Service()
    with mail_server(tls) as (mail, smtp), TemporaryDirectory(prefix="fanline-app-") as name:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(trio.serve_tcp, service.serve, 0, host="127.0.0.1"))
            http = listeners[0].socket.getsockname()[1]
            text = SETTINGS.format(smtp=smtp, http=http, give_up=give_up, more=more, email=email)
            (Path(name) / "fanline.toml").write_text(text)
            env = {"FANLINE_CONTROL": "true"}
            async with running_serve(workers, prefix=("env", "-C", name), env=env) as serve:
                notified = Notified(serve, mail, service)
                await notified.api("GET", "/info")  # the control process is there
                yield notified
            nursery.cancel_scope.cancel()
