"""`fanline token` and `fanline share`: sign tokens with the secret of a server."""

import os
import re
import time
from collections.abc import Sequence
from typing import Annotated, Any
from uuid import uuid4

import typer

from fanline.cli.options import channel_name
from fanline.cli.terminal import put
from fanline.errors import FanlineError
from fanline.local import find_server
from fanline.protocol.auth.claims import MIN_SECRET_BYTES, TokenError, read_claims
from fanline.protocol.auth.rights import Grant, GrantError, Right, parse_grant, right_names

SECRET_VARIABLE = "FANLINE_TOKENS_SECRET"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SHARED = ("sub", "history")


class NoSecret(FanlineError):  # noqa: N818  # reads as what was found
    """There is nothing to sign a token with."""


def add_token(app: typer.Typer) -> None:
    """Register both commands."""
    app.command(short_help="Sign a token for a client.")(token)
    app.command(short_help="Sign a token with which anyone may watch one channel.")(share)


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d{1,9})([smhd]?)", text)
    if found is None or int(found[1]) == 0:
        raise typer.BadParameter(f"{text!r} is no time; write 90, 15m, 1h or 7d")
    return float(int(found[1]) * _UNITS[found[2] or "s"])


def _grants(texts: list[str]) -> list[Grant]:
    try:
        return [parse_grant(text) for text in texts]
    except GrantError as error:
        raise typer.BadParameter(str(error)) from None


def token(
    sub: Annotated[str | None, typer.Option("--sub", metavar="USER", help="The user. [default: nobody]")] = None,
    role: Annotated[list[str] | None, typer.Option(metavar="ROLE", help="As in admin; may be repeated.")] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN:RIGHTS", help="As in 'task:*:sub+call'; may be repeated."),
    ] = None,
    username: Annotated[str | None, typer.Option(metavar="NAME", help="How others see the user.")] = None,
    ttl: Annotated[str, typer.Option(metavar="TIME", help="How long it is valid: 90, 15m, 1h, 7d.")] = "1h",
) -> None:
    """Print a token for a client of `fanline serve`, as your backend would make one.

    \b
      export FANLINE_TOKEN=$(fanline token --sub anna --allow 'task:*:sub+call')
      fanline tail task:build-42 --url ws://127.0.0.1:8080/ws

    Rights are sub, pub, presence, history, call, and its parts cancel and answer. It is signed with the secret in
    FANLINE_TOKENS_SECRET, or with that of the local server. Exits with code 0, 1 without a secret, 2 for wrong usage.
    """
    named = {"sub": sub, "username": username, "roles": role}
    _print_token({key: value for key, value in named.items() if value is not None}, _grants(allow or []), _seconds(ttl))


def share(
    channel: Annotated[str, typer.Argument(metavar="CHANNEL", callback=channel_name, help="As in task:42.")],
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="RIGHT", help="What viewers may do besides watching: cancel, answer, call, presence."),
    ] = None,
    ttl: Annotated[str, typer.Option(metavar="TIME", help="How long it is valid: 90, 15m, 1h, 7d.")] = "1h",
) -> None:
    """Print a token with which anyone who has it may watch one channel, and nothing else.

    \b
      fanline share task:42 --ttl 1h
      fanline share task:42 --allow cancel

    It names no user, so whoever has it may pass it on: keep its time short. It is signed as by `fanline token`.
    """
    (grant,) = _grants([f"{channel}:{'+'.join([*_SHARED, *(allow or [])])}"])
    if Right.PUB in grant.rights:
        raise typer.BadParameter("a shared channel is watched, not published to; make a token for a user instead")
    _print_token({"jti": f"share-{uuid4().hex}"}, [grant], _seconds(ttl))


def _print_token(claims: dict[str, Any], grants: Sequence[Grant], seconds: float) -> None:
    now = time.time()
    claims |= {
        "iat": now,
        "exp": now + seconds,
        "channels": {each.pattern: right_names(each.rights) for each in grants},
    }
    try:
        read_claims(claims)
    except TokenError as error:
        raise typer.BadParameter(str(error)) from None
    from fanline.protocol.auth.tokens import sign

    put(sign(claims, _secret()))


def _secret() -> bytes:
    """Of the environment, or of the local server. Raises NoSecret, NoServer."""
    secret = os.environ.get(SECRET_VARIABLE) or find_server().token_secret
    if not secret:
        raise NoSecret(
            "the local server has no secret to sign with: start it with --auth token, or set "
            f"{SECRET_VARIABLE} for both"
        )
    if len(secret.encode()) < MIN_SECRET_BYTES:
        raise NoSecret(f"{SECRET_VARIABLE} needs at least {MIN_SECRET_BYTES} bytes")
    return secret.encode()
