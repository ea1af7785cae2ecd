"""No token, and no secret, is anywhere that others can read: logs, the audit log, answers, command lines, files."""

import stat
from base64 import urlsafe_b64encode
from pathlib import Path

import trio

from fanline.protocol.auth.tokens import sign
from fanline.protocol.serve_state import decode_state
from tests.engine.access.tokens.test_token_attacks import places_of
from tests.support.raw_client import connect_raw, upgrade_request
from tests.support.servers.serve import Serve, children_of, running_serve

CANARY = "canary-7d1f"
WRONG = "of somebody else, and long enough for SHA-256"


def tokens(secret: str) -> list[str]:
    """Tokens that are accepted, expired, revoked in name only, forged, and none; each holds the canary."""
    claims = {"sub": CANARY, "jti": f"id-of-{CANARY}", "channels": {"task:*": ["sub"]}}
    signed = [sign({**claims, "exp": ends}, secret.encode()) for ends in (4e9, 1e9)]
    return [*signed, sign({**claims, "exp": 4e9}, WRONG.encode()), f"{signed[0]}x", f"{CANARY}.{CANARY}.{CANARY}"]


def requests(text: str) -> list[bytes]:
    """Requests of every kind, good and bad, with the token wherever a client might put it."""
    target = f"token={text}"
    odd = [
        upgrade_request(f"/healthz?{target}"),
        upgrade_request(f"/readyz?{target}"),
        upgrade_request(f"/nowhere/{text}?{target}"),
        upgrade_request(f"/ws?{target}&{target}"),
        upgrade_request(f"/ws?{target}", Sec_WebSocket_Key="no key"),
        upgrade_request(f"/ws?{target}", subprotocol=f"fanline.token.{text}"),
        upgrade_request(f"/ws?{target}", Host="evil.example"),
        upgrade_request("/ws", Referer=f"https://app.example/?{target}"),
        upgrade_request(f"/ws?{target}", X_Forwarded_For=text),
        upgrade_request(f"/ws?{target}").replace(b"GET", b"DELETE"),
        f"GET /ws?{target} HTTP/1.1\nrubbish\x00".encode(),
        f"Bearer {text}\r\n\r\n".encode(),
    ]
    return [
        *(place(text, spoken) for spoken in ("fanline.v1.json", None) for place in places_of(spoken).values()),
        *odd,
    ]


async def everything_said(serve: Serve, text: str) -> bytes:
    """All that the server answers to these requests, but for the name of a user who got in."""
    said = b""
    for request in requests(text):
        async with connect_raw("127.0.0.1", serve.port) as client:
            await client.send(request)
            with trio.move_on_after(0.3):
                while data := await client.stream.receive_some():
                    said += data
                    if b'"welcome"' in data or b"connection_established" in data:
                        break
    return said.replace(f'"user":"{CANARY}"'.encode(), b"")


def command_lines(pid: int) -> str:
    """Of a process and all below it, which every user of the machine may read."""
    below = "".join(command_lines(child) for child, _ in children_of(pid))
    return Path(f"/proc/{pid}/cmdline").read_text() + below


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_no_token_and_no_secret_can_be_read_by_others(tmp_path: Path) -> None:
    audit = tmp_path / "audit.jsonl"
    environ = {"FANLINE_ENGINE_AUDIT_LOG": str(audit), "FANLINE_TOKENS_COOKIE": "session"}
    with trio.fail_after(100):
        async with running_serve(1, ("--auth", "token"), environ) as serve:
            (file,) = serve.state_directory.glob("serve-*.json")
            state = decode_state(file.read_bytes())
            secret, nats = state.token_secret, state.nats_password or state.nats_token
            shown = tokens(secret)
            answers = b"".join([await everything_said(serve, text) for text in shown])
            lines = command_lines(serve.pid)
            modes = {path: mode(path) for path in (file, serve.data_directory / "tokens.secret", audit)}
            directories = {path: mode(path) for path in (serve.state_directory, serve.data_directory)}
            told = serve.stderr_text() + serve.ready_line
    pieces = {piece for text in shown for piece in (text, *text.split(".")[1:])} - {CANARY}
    hidden = [*pieces, secret, nats, urlsafe_b64encode(secret.encode()).decode(), CANARY]
    assert [each for each in hidden if each in told] == [], "the log"
    assert [each for each in hidden if each in lines] == [], "a command line"
    assert [each for each in hidden if each.encode() in answers] == [], "an answer"
    assert [each for each in [*pieces, secret, nats] if each in audit.read_text()] == [], "the audit log"
    assert CANARY in audit.read_text()  # the user's name belongs there
    assert "Traceback" not in told
    assert {*modes.values()} == {0o600}, modes
    assert {*directories.values()} == {0o700}, directories
