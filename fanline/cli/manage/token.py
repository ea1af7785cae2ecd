"""`fanline token` and `fanline share` sign tokens with the secret of a server; `fanline revoke` takes them back, and
`fanline unsubscribe` a user's place on a channel.
"""

import os
import re
import time
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any
from uuid import uuid4

import msgspec
import typer

from fanline.cli.options import Url, channel_name, channel_or_pattern
from fanline.cli.runner import run
from fanline.cli.terminal import put
from fanline.cli.viewer import local_server
from fanline.errors import FanlineError
from fanline.nats.publish import open_nats_publisher
from fanline.nats.settings import find_engine_options
from fanline.protocol.auth.claims import MIN_SECRET_BYTES, TokenError, read_claims
from fanline.protocol.auth.revocation import REMOVAL_SECONDS, REMOVALS, Removal, Revocation, encode_revocation
from fanline.protocol.auth.rights import Grant, GrantError, Right, make_grant, parse_grant, right_names
from fanline.protocol.nats.names import Bucket
from fanline.protocol.text import explain

SECRET_VARIABLE = "FANLINE_TOKENS_SECRET"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SHARED = ("sub", "history")


class NoSecret(FanlineError):  # noqa: N818  # reads as what was found
    """There is nothing to sign a token with."""


def add_token(app: typer.Typer) -> None:
    """Register the commands."""
    app.command(short_help="Sign a token for a client.")(token)
    app.command(short_help="Take tokens back before they end.")(revoke)
    app.command(short_help="End a user's subscriptions to a channel.")(unsubscribe)
    app.command(short_help="Sign a token with which anyone may watch one channel.")(share)


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d{1,9})([smhd]?)", text)
    if found is None or int(found[1]) == 0:
        raise typer.BadParameter(f"{text!r} is not a time; write 90, 15m, 1h or 7d")
    return float(int(found[1]) * _UNITS[found[2] or "s"])


def _grants(texts: list[str]) -> list[Grant]:
    try:
        return [parse_grant(text) for text in texts]
    except GrantError as error:
        raise typer.BadParameter(str(error)) from None


def token(
    sub: Annotated[str | None, typer.Option("--sub", metavar="USER", help="The user. [default: none]")] = None,
    role: Annotated[list[str] | None, typer.Option(metavar="ROLE", help="As in admin; may be repeated.")] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN:RIGHTS", help="As in 'task:*:sub+call'; may be repeated."),
    ] = None,
    username: Annotated[str | None, typer.Option(metavar="NAME", help="How others see the user.")] = None,
    ttl: Annotated[str, typer.Option(metavar="TIME", help="How long it is valid: 90, 15m, 1h, 7d.")] = "1h",
    url: Url = None,
) -> None:
    """Print a token for a client of `fanline serve`, as your backend would make one.

    \b
      export FANLINE_TOKEN=$(fanline token --sub anna --allow 'task:*:sub+call')
      fanline tail task:build-42 --url ws://127.0.0.1:8080/ws

    Rights are sub, pub, presence, history, call, and its parts cancel and answer. It is signed with the secret in
    FANLINE_TOKENS_SECRET, or with that of the local server. Exits with code 0, 1 without a secret, 2 for wrong usage.
    """
    named = {"sub": sub, "username": username, "roles": role}
    _print_token(
        {key: value for key, value in named.items() if value is not None}, _grants(allow or []), _seconds(ttl), url
    )


def share(
    channel: Annotated[str, typer.Argument(metavar="CHANNEL", callback=channel_name, help="As in task:42.")],
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="RIGHT", help="What viewers may do besides watching: cancel, answer, call, presence."),
    ] = None,
    ttl: Annotated[str, typer.Option(metavar="TIME", help="How long it is valid: 90, 15m, 1h, 7d.")] = "1h",
    url: Url = None,
) -> None:
    """Print a token with which anyone who has it may watch one channel, and nothing else.

    \b
      fanline share task:42 --ttl 1h
      fanline share task:42 --allow cancel

    It names no user, and anyone who has it can pass it on: keep its time short. It is signed as by `fanline token`.
    """
    try:
        grant = make_grant(channel, [*_SHARED, *(allow or [])])
    except GrantError as error:
        raise typer.BadParameter(str(error)) from None
    if Right.PUB in grant.rights:
        raise typer.BadParameter("a shared channel is watched, not published to; make a token for a user instead")
    _print_token({"jti": f"share-{uuid4().hex}"}, [grant], _seconds(ttl), url)


def revoke(
    user: Annotated[str | None, typer.Option(metavar="USER", help="All tokens of this user.")] = None,
    token_id: Annotated[str | None, typer.Option(metavar="JTI", help="The token with this id, its claim jti.")] = None,
    everyone: Annotated[bool, typer.Option("--everyone", help="All tokens there are.")] = False,
    ttl: Annotated[
        str, typer.Option(metavar="TIME", help="How long this is remembered: as long as a token may live.")
    ] = "30d",
    url: Url = None,
) -> None:
    """Take tokens back: their connections end within a second on every worker, and they are not accepted again.

    \b
      fanline revoke --user anna
      fanline revoke --token-id 8c1f

    Of a user, or of everyone, all tokens that were issued until now are taken back; new ones are accepted. It is stored
    in NATS, that of FANLINE_NATS or of the local server. Exits with code 0 when it is stored.
    """
    if (user is not None) + (token_id is not None) + everyone != 1:
        raise typer.BadParameter("give one of --user, --token-id and --everyone")
    now = time.time()
    revocation = Revocation(user=user, token_id=token_id, before=now, until=now + _seconds(ttl))
    run(partial(_put, revocation.key, encode_revocation(revocation), _seconds(ttl), url))


def unsubscribe(
    user: Annotated[str, typer.Argument(metavar="USER", help="The name of the user.")],
    channel: Annotated[
        str, typer.Argument(metavar="CHANNEL", callback=channel_or_pattern, help="As in project:7, or project:*.")
    ],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="A sentence for the user's clients.")] = "",
    url: Url = None,
) -> None:
    """End a user's subscriptions to a channel, within a second on every worker, and have the authorizer asked again.

    \b
      fanline unsubscribe anna project:7 --reason 'you have left the project'

    It takes no right away: before that, take the user off the channel in your own code, or in the next token. It is
    stored in NATS, that of FANLINE_NATS or of the local server. Exits with code 0 when it is stored.
    """
    try:
        removal = msgspec.convert({"user": user, "channel": channel, "reason": reason}, Removal)
    except msgspec.ValidationError as error:
        raise typer.BadParameter(explain(error)) from None
    run(partial(_put, f"{REMOVALS}.{uuid4().hex}", encode_revocation(removal), REMOVAL_SECONDS, url))


async def _put(key: str, value: bytes, seconds: float, url: str | None) -> int:
    async with open_nats_publisher(find_engine_options(url)) as publisher:
        publisher.put(Bucket.REVOKED, key, value, seconds)
    return 0


def _print_token(claims: dict[str, Any], grants: Sequence[Grant], seconds: float, url: str | None) -> None:
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

    put(sign(claims, _secret(url)))


def _secret(url: str | None) -> bytes:
    """Of the environment, or of the local server, if none is named by its URL. Raises NoSecret, NoServer."""
    given = None if url else os.environ.get(SECRET_VARIABLE)
    secret = given or local_server(url).token_secret
    if not secret:
        raise NoSecret(
            "the local server has no secret to sign with: start it with --auth token, or set "
            f"{SECRET_VARIABLE} for both"
        )
    if len(secret.encode()) < MIN_SECRET_BYTES:
        raise NoSecret(f"{SECRET_VARIABLE} needs at least {MIN_SECRET_BYTES} bytes")
    return secret.encode()
