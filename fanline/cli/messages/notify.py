"""`fanline notify`: notify a user, a group or all users."""

from collections.abc import Sequence
from typing import Annotated

import typer

from fanline.cli.nats_flags import (
    NatsCreds,
    NatsNkey,
    NatsTlsCa,
    NatsTlsCert,
    NatsTlsKey,
    NatsUrl,
    nats_from_flags,
)
from fanline.cli.terminal import put
from fanline.protocol.notifications.notification import NotificationChannel, NotificationLevel
from fanline.publishing.notify import notify as send


def add_notify(app: typer.Typer) -> None:
    """Register the command."""
    app.command(short_help="Notify a user, by WebSocket, e-mail, SMS and push.")(notify)


def notify(
    user: Annotated[str, typer.Argument(help="A user's name; * for all users; @NAME for a group of the settings.")],
    title: Annotated[str, typer.Argument(help="The title; not needed with a template.")] = "",
    message: Annotated[str, typer.Argument(help="The text.")] = "",
    level: Annotated[NotificationLevel | None, typer.Option(help="How much it matters. [default: info]")] = None,
    channels: Annotated[
        list[NotificationChannel] | None,
        typer.Option("--channel", help="Send it by this channel, whatever its level; may be given several times."),
    ] = None,
    action_url: Annotated[str | None, typer.Option(metavar="URL", help="Where a click leads to.")] = None,
    template: Annotated[str | None, typer.Option(metavar="NAME", help="Take title, text and level from it.")] = None,
    parameters: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A parameter of the template; may be given several times."),
    ] = None,
    key: Annotated[str | None, typer.Option(help="With the same one, it is sent only once in a while.")] = None,
    notification_id: Annotated[
        str | None, typer.Option("--id", help="With the same one, it is the same notification.")
    ] = None,
    nats: NatsUrl = None,
    nats_creds: NatsCreds = None,
    nats_nkey: NatsNkey = None,
    nats_tls_ca: NatsTlsCa = None,
    nats_tls_cert: NatsTlsCert = None,
    nats_tls_key: NatsTlsKey = None,
) -> None:
    """Notify a user, and return when the notification is stored: the server sends it then.

    It goes through NATS, by default that of the local `fanline serve`. Prints the id of the notification.

    \b
      fanline notify anna "Build failed" "See the log" --level error
      fanline notify anna "Fire" --channel sms --channel push
      fanline notify '*' --template maintenance --set begins=22:00 --set ends=23:00 --set details=
    """
    options = nats_from_flags(
        nats, creds=nats_creds, nkey=nats_nkey, tls_ca=nats_tls_ca, tls_cert=nats_tls_cert, tls_key=nats_tls_key
    )
    receipt = send(
        user,
        title,
        message,
        None if level is None else level.value,
        None if channels is None else [each.value for each in channels],
        action_url,
        template=template,
        parameters=_parameters(parameters or ()),
        key=key,
        id=notification_id,
        nats=options,
    )
    receipt.wait()
    put(receipt.deduplication_id)


def _parameters(texts: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    if not all(sign for _, sign, _ in pairs):
        raise typer.BadParameter("write --set NAME=VALUE")
    return {name: value for name, _, value in pairs}
