"""What is tried on each route: the first message, a ping or an echo, envelope v1, and the progress of a task."""

import math
from collections.abc import Callable
from typing import NamedTuple

import trio

from fanline.cli.probe.findings import Destination, Finding, Verdict, progress
from fanline.cli.probe.way import Blocked, Socket, milliseconds, open_socket

_NOBODY = "fanline-probe"  # in place of the names in a path


class Tried(NamedTuple):
    """A default route for clients; the monitor, which is for operators, refuses most. `echoes`: whether it sends back
    what is sent.
    """

    path: str
    echoes: bool = False


ROUTES = (
    Tried("/"),
    Tried("/ws"),
    Tried("/ws/board"),
    Tried("/ws/chat"),
    Tried(f"/ws/chat/session/{_NOBODY}"),
    Tried("/ws/health"),
    Tried(f"/ws/review/{_NOBODY}"),
    Tried(f"/ws/task/{_NOBODY}"),
    Tried(f"/ws/test/{_NOBODY}", echoes=True),
)
_V1 = "fanline.v1.json"


async def try_route(target: Destination, route: Tried, token: str | None) -> Finding:
    """Connect as an existing client does, wait for the first message, and ask for an answer."""
    part = route.path
    try:
        async with open_socket(target, route.path, part, token) as socket:
            first = await socket.hear("first message")
            asked = trio.current_time()
            await socket.say({"type": "ping", "timestamp": 1})
            answer = "echo" if route.echoes else "pong"
            await socket.hear(f"`{answer}` to a ping", answer)
            return Finding(part, Verdict.OK, f"`{first.get('type')}`, then `{answer}` after {milliseconds(asked)}")
    except Blocked as blocked:
        return blocked.finding


async def try_v1(target: Destination, token: str | None) -> Finding:
    """The same on `/ws` as clients of envelope v1 do."""
    part = f"/ws, {_V1}"
    try:
        async with open_socket(target, "/ws", part, token, _V1) as socket:
            first = await socket.hear("welcome")
            if first.get("t") == "err":
                said = first["d"].get("message", "") if isinstance(first.get("d"), dict) else ""
                return Finding(part, Verdict.FAILED, f"refused: {said}", "set FANLINE_TOKEN to a token of this server")
            asked = trio.current_time()
            await socket.say({"v": 1, "t": "ping", "i": "probe"})
            await socket.hear("`pong` to a ping", "pong")
            return Finding(part, Verdict.OK, f"`{first.get('t')}`, then `pong` after {milliseconds(asked)}")
    except Blocked as blocked:
        return blocked.finding


async def follow(
    target: Destination, task: str, token: str | None, seconds: float, tell: Callable[[Finding], None]
) -> None:
    """Tell what the route of a task says about it, until the task ends or for `seconds` seconds."""
    part = f"task {task}"
    try:
        async with open_socket(target, f"/ws/task/{task}", part, token) as socket:
            with trio.move_on_after(seconds):
                await _tell_progress(socket, part, tell)
    except Blocked as blocked:
        tell(blocked.finding)


async def _tell_progress(socket: Socket, part: str, tell: Callable[[Finding], None]) -> None:
    is_last = False
    while not is_last:
        said = progress(await socket.hear("message", seconds=math.inf))
        if said is not None:
            is_last = said.is_last
            tell(Finding(part, said.verdict, said.text))
