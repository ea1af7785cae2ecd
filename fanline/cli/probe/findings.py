"""What a probe finds, in words: pure decisions from what was seen."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from fanline.protocol.tasks.states import TERMINAL


class Verdict(StrEnum):
    """How a part of the way did."""

    OK = "ok"
    ABSENT = "absent"  # a route that this server does not serve, which is nothing wrong
    FAILED = "failed"


class Finding(NamedTuple):
    """What was found of one part of the way. `text` is what was seen, `advice` what to do, empty if nothing."""

    part: str
    verdict: Verdict
    text: str
    advice: str = ""


class Destination(NamedTuple):
    """Where a URL leads. `prefix`: what a proxy puts before the paths of the server, as in `/app`."""

    secure: bool
    host: str
    port: int
    prefix: str

    @property
    def authority(self) -> str:
        """For the header `Host`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"


def target_of(url: str) -> Destination:
    """The target of a WebSocket URL; one that ends in `/ws` means the server, whatever is before it."""
    parts = urlsplit(url)
    secure = parts.scheme == "wss"
    prefix = parts.path.rstrip("/").removesuffix("/ws")
    return Destination(secure, parts.hostname or "", parts.port or (443 if secure else 80), prefix)


_NO_UPGRADE = (
    "a proxy between here and the server does not pass WebSocket upgrades on; nginx needs proxy_http_version 1.1; "
    'proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";'
)
_ELSEWHERE = "a proxy or web server redirects: use the address to which it leads, often the same one with wss://"
_OF_PROXIES = {
    **dict.fromkeys((301, 302, 303, 307, 308), _ELSEWHERE),
    401: "a proxy wants a login of its own; it has to let WebSockets pass without one, or with the token of the client",
    403: "a proxy or a firewall refuses this; does it allow this path, this address, and WebSocket upgrades?",
    404: "what answers there has nothing at this path; is the path before /ws right, and does the proxy pass it on?",
    429: "a proxy limits how often it is asked; wait, or raise its limit",
    500: "a proxy, or another program than Fanline, has failed; its log says why",
    502: "a proxy answers, but does not reach the server behind it: does the server run, and where the proxy looks?",
    503: "a proxy answers, and has no server behind it: is it running?",
    504: "a proxy answers, but the server behind it does not: is it running, and is the way to it open?",
}
_OF_SERVERS = {
    401: "set FANLINE_TOKEN to a token that this server accepts; `fanline token` makes one for a local server",
    403: "the server's sentence names what is missing: a right of the token, or an entry in `hosts` or `origins`",
    429: "a limit is reached; wait, or see docs/reference/limits.md",
    503: "the server has no room, or is not ready: look at its /readyz and its log",
}


def refusal(part: str, status: int, body: bytes) -> Finding:
    """What an HTTP answer means in place of an upgrade. The server's own answers are JSON with `error`, `message`."""
    said = own_answer(body)
    if said is None:
        text = f"HTTP {status}, which is not an answer of a Fanline server"
        return Finding(part, Verdict.FAILED, text, _OF_PROXIES.get(status, _NO_UPGRADE))
    if status == 404:
        return Finding(part, Verdict.ABSENT, "this server does not serve it")
    return Finding(part, Verdict.FAILED, f"refused with HTTP {status}: {said}", _OF_SERVERS.get(status, ""))


def own_answer(body: bytes) -> str | None:
    """The sentence of a server's own HTTP answer; None if another program has written it."""
    try:
        answer = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None
    if not isinstance(answer, dict) or "error" not in answer or not isinstance(answer.get("message"), str):
        return None
    return str(answer["message"])


def closed(part: str, code: int | None, reason: str) -> Finding:
    """A connection that ended before the server had said what it had to."""
    if code is None:
        text, advice = (
            "the connection was lost",
            "a firewall or proxy may cut WebSockets; the server's log may say more",
        )
    else:
        text, advice = f"the server closed the connection: {reason or 'no reason given'} ({code})", ""
    return Finding(part, Verdict.FAILED, text, advice)


def silence(part: str, wanted: str, seconds: float) -> Finding:
    """An open connection on which nothing came."""
    text = f"connected, but no {wanted} within {seconds:g} s"
    return Finding(part, Verdict.FAILED, text, "a proxy may hold messages back (nginx: proxy_buffering off;)")


class TaskLine(NamedTuple):
    """A message of a task's route, in one line."""

    verdict: Verdict
    text: str
    is_last: bool


_ENDS = {state.upper() for state in TERMINAL}


def progress(message: Mapping[str, Any]) -> TaskLine | None:
    """What a message says about the task of its route; None if nothing."""
    if message.get("type") == "error":
        return TaskLine(Verdict.FAILED, f"error: {message.get('message')}", is_last=True)
    if "stage" in message:
        words = (message.get("stage"), _percent(message.get("progress")), message.get("message"))
        return TaskLine(Verdict.OK, " ".join(str(word) for word in words if word), message["stage"] == "complete")
    status = message.get("status")
    if message.get("type") == "status" and status is not None:
        return TaskLine(Verdict.OK, f"status {status}", str(status).upper() in _ENDS)
    return None


def _percent(value: object) -> str:
    return f"{value:g} %" if isinstance(value, int | float) and not isinstance(value, bool) else ""
