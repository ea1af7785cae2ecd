"""Every way to log in, against a real nats-server that wants it: the modules without I/O under the smallest shell."""

from pathlib import Path

import msgspec
import pytest
import trio

from fanline.protocol.nats.commands import publish
from fanline.protocol.nats.parser import NatsError
from fanline.protocol.nats.replies import ComplaintKind
from tests.support.nats.blocking import BlockingClient
from tests.support.nats.logins import LOGINS, OpenLogin, running_with_denials

pytestmark = pytest.mark.process

STREAM = {"name": "TEST", "subjects": ["stored.>"]}


@pytest.mark.parametrize("open_login", LOGINS.values(), ids=LOGINS)
async def test_a_right_login_can_publish_hear_and_store(open_login: OpenLogin, tmp_path: Path) -> None:
    with trio.fail_after(10):
        async with open_login(tmp_path) as login:
            with BlockingClient(login.options) as client:
                client.hear("greetings.*")
                client.connection.send(publish("greetings.one", b"hello", {"Name": "x"}))
                client.flush()
                assert [message.payload for message in client.heard] == [b"hello"]
                created = client.request("$JS.API.STREAM.CREATE.TEST", msgspec.json.encode(STREAM))
                assert b"error" not in created
                assert msgspec.json.decode(client.request("stored.one", b"kept"))["seq"] == 1


@pytest.mark.parametrize("open_login", LOGINS.values(), ids=LOGINS)
async def test_a_wrong_login_is_refused_with_a_reason(open_login: OpenLogin, tmp_path: Path) -> None:
    with trio.fail_after(10):
        async with open_login(tmp_path) as login:
            for reason, options in login.wrong.items():
                with pytest.raises((NatsError, OSError), match=reason):
                    BlockingClient(options)


async def test_a_denied_subject_is_named_and_all_others_go_on() -> None:
    with trio.fail_after(10):
        async with running_with_denials(publish="secret.in", subscribe="secret.out.>") as login:
            with BlockingClient(login.options) as client:
                client.hear("secret.out.a")
                client.hear("open.*")
                client.connection.send(publish("secret.in", b"x") + publish("open.a", b"1"))
                client.flush()
                assert [(complaint.kind, complaint.subject) for complaint in client.complaints] == [
                    (ComplaintKind.SUBSCRIBE_DENIED, "secret.out.a"),
                    (ComplaintKind.PUBLISH_DENIED, "secret.in"),
                ]
                assert [message.payload for message in client.heard] == [b"1"]
