"""A whole `fanline serve` on a NATS of your own: it logs in by its settings, and says why if it cannot."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

import fanline
from fanline.protocol.nats.options import NatsOptions
from tests.support.nats.logins import LOGINS, REFUSED, creds_login, running_with_denials
from tests.support.servers.serve import running_serve, start_serve


def settings_of(options: NatsOptions) -> dict[str, Any]:
    """The arguments of `running_serve` for these options: URLs on the command line, the rest in the environment."""
    given: dict[str, str] = {**msgspec.structs.asdict(options), "servers": ""}
    environ = {f"FANLINE_NATS_{field.upper()}": value for field, value in given.items() if value}
    return {"extra_args": ("--nats", ",".join(options.servers)), "env": environ}


async def refusal(login: NatsOptions, directory: Path) -> str:
    """What `fanline serve` says last, which must have ended."""
    settings = settings_of(login)
    args = ("--port", "0", "--workers", "1", "--data-dir", str(directory / "data"), *settings["extra_args"])
    child, stdout = start_serve(args, directory, settings["env"])
    async with stdout:
        await child.wait()
    child.close()
    assert str(child.ending) == "exit code 1"
    text = (directory / "stderr.txt").read_text()
    assert "Traceback" not in text
    return text.splitlines()[-1]


@pytest.mark.parametrize("name", ["nkey", "creds", "mutual TLS"])
async def test_a_server_with_the_right_settings_stores_and_delivers(name: str, tmp_path: Path) -> None:
    with trio.fail_after(90):
        async with (
            LOGINS[name](tmp_path) as login,
            running_serve(workers=1, **settings_of(login.options)) as serve,
            fanline.Client(serve.url) as client,
            client.subscribe("project:1") as project,
        ):
            assert (await client.publish("project:1", "hello")).offset == 1
            assert (await anext(project)).data == "hello"


async def test_a_server_with_foreign_creds_ends_with_one_sentence_that_names_nats_and_the_reason(
    tmp_path: Path,
) -> None:
    with trio.fail_after(90):
        async with creds_login(tmp_path) as login:
            said = await refusal(login.wrong[REFUSED], tmp_path)
    assert f"cannot connect to NATS at {login.options.describe()}: NATS {REFUSED}" in said


async def test_a_server_whose_user_may_not_use_jetstream_ends_with_one_sentence_that_names_the_subject(
    tmp_path: Path,
) -> None:
    with trio.fail_after(90):
        async with running_with_denials(publish="$JS.API.STREAM.CREATE.>", subscribe="nothing") as login:
            said = await refusal(login.options, tmp_path)
    assert f"NATS at {login.options.describe()} cannot be used: " in said
    assert "NATS does not permit this user to publish to $JS.API.STREAM.CREATE." in said


async def test_a_client_is_told_the_subject_that_nats_denies_and_all_others_go_on() -> None:
    with trio.fail_after(90):
        async with (
            running_with_denials(publish="fanline.pub.*.mute", subscribe="fanline.*.*.deaf") as login,
            running_serve(workers=1, **settings_of(login.options)) as serve,
            fanline.Client(serve.url) as client,
        ):
            for channel, subject in (
                ("project:mute", "fanline.pub.project.mute"),
                ("news:mute", "fanline.pub.news.mute"),
            ):
                with pytest.raises(fanline.ServerError, match=f"does not permit this user to publish to {subject}"):
                    await client.publish(channel, 1)
            for channel, subject in (
                ("project:deaf", "fanline.out.project.deaf"),
                ("news:deaf", "fanline.pub.news.deaf"),
            ):
                with pytest.raises(fanline.ServerError, match=f"does not permit this user to subscribe to {subject}"):
                    async with client.subscribe(channel):
                        pass
            async with client.subscribe("project:1") as project:
                await client.publish("project:1", "hello")
                assert (await anext(project)).data == "hello"
