"""`fanline probe`: print what works between here and a server, and what is wrong with the rest."""

from collections.abc import Callable
from functools import partial
from typing import Annotated

import msgspec
import trio
import typer

from fanline.cli.options import task_id, websocket_url
from fanline.cli.probe.findings import Destination, Finding, Verdict, target_of
from fanline.cli.probe.routes import ROUTES, follow, try_route, try_v1
from fanline.cli.probe.way import Blocked, connect, milliseconds, resolve, secure
from fanline.cli.runner import FAILURE, run
from fanline.cli.terminal import put, put_json
from fanline.cli.viewer import server_and_token

Tell = Callable[[Finding], None]
_AT_ONCE = 5


class FindingPrinter:
    """Prints each finding at once. `code`: the exit code, 1 once a part has failed."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self.code = 0

    def tell(self, finding: Finding) -> None:
        if finding.verdict is Verdict.FAILED:
            self.code = FAILURE
        if self._as_json:
            put_json(msgspec.json.encode(finding._asdict()).decode())
            return
        put(f"{finding.verdict:<6}  {finding.part}: {finding.text}")
        if finding.advice:
            put(f"        {finding.advice}")


async def probe_server(url: str, token: str | None, task: str | None, seconds: float, report: FindingPrinter) -> int:
    """Go the whole way; returns the exit code."""
    target = target_of(url)
    try:
        await _reach(target, report.tell)
    except Blocked as blocked:
        report.tell(blocked.finding)
        return report.code
    for finding in await _try_all(target, token):
        report.tell(finding)
    if task is not None:
        await follow(target, task, token, seconds, report.tell)
    return report.code


async def _reach(target: Destination, tell: Tell) -> None:
    """Everything below HTTP. Blocked."""
    addresses = await resolve(target)
    if addresses != [target.host]:
        tell(Finding("address", Verdict.OK, f"{target.host} is {', '.join(addresses)}"))
    began = trio.current_time()
    async with await connect(target) as stream:
        tell(Finding("connect", Verdict.OK, f"{target.authority} after {milliseconds(began)}"))
        if target.secure:
            began = trio.current_time()
            async with await secure(target, stream):
                tell(Finding("tls", Verdict.OK, f"the certificate is accepted, after {milliseconds(began)}"))


async def _try_all(target: Destination, token: str | None) -> list[Finding]:
    """What is found of each route, in their order. Some at a time: where nobody answers, each takes seconds."""
    tries = [*(partial(try_route, target, route, token) for route in ROUTES), partial(try_v1, target, token)]
    found, places = dict[int, Finding](), trio.CapacityLimiter(_AT_ONCE)

    async def attempt(number: int) -> None:
        async with places:
            found[number] = await tries[number]()

    async with trio.open_nursery() as nursery:
        for number in range(len(tries)):
            nursery.start_soon(attempt, number)
    return [found[number] for number in range(len(tries))]


def add_probe(app: typer.Typer) -> None:
    """Register the command."""
    app.command(short_help="Find out what is wrong between here and a server.")(probe)


def _task(name: str | None) -> str | None:
    return None if name is None else task_id(name)


def probe(
    url: Annotated[
        str | None,
        typer.Argument(
            metavar="[WS_URL]", callback=websocket_url, help="As in wss://example.org/ws. [default: the local server]"
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option(metavar="ID", callback=_task, help="Follow this task on its route, too.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to follow the task, if it does not end.")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per finding, for scripts.")] = False,
) -> None:
    """Find out what is wrong between here and a server.

    \b
      fanline probe
      fanline probe wss://example.org/ws --task 42

    Looks up the name, connects, checks the certificate, and tries each default route as a browser would: handshake,
    first message, ping or echo. Each line says what was seen; where a part fails, the next line says what to do. A path
    before /ws, as in wss://example.org/app/ws, is put before every route. The token comes from FANLINE_TOKEN. Exits
    with code 1 if a part failed; a route that the server does not serve is no failure.
    """
    url, token = server_and_token(url)
    report = FindingPrinter(as_json=as_json)
    run(partial(probe_server, url, token() if callable(token) else token, task, seconds, report))
