"""Producers with every way to log in to NATS, with several servers and with a cluster: what they report is stored."""

import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

import fanline
from fanline.protocol.nats.options import NatsOptions
from tests.support.nats.blocking import BlockingClient
from tests.support.nats.client import NatsClient, connect_nats
from tests.support.nats.cluster import running_cluster
from tests.support.nats.logins import (
    LOGINS,
    OpenLogin,
    creds_login,
    mutual_tls_login,
    running_with_denials,
    token_login,
)
from tests.support.nats.server import running_nats
from tests.support.open_sockets import connections_to
from tests.support.paths import ROOT
from tests.support.servers.serve import wait_until
from tests.support.tasks.stored import SECONDS, STREAM, StoredTasks, create_stream, in_thread, lines_of, run_script

FANLINE = [sys.executable, "-P", "-m", "fanline"]
NAMES = ("user", "password", "token", "creds", "nkey", "tls_ca", "tls_cert", "tls_key")
EVERY_LOGIN = pytest.mark.parametrize("open_login", LOGINS.values(), ids=LOGINS)


def _report(options: NatsOptions, **settings: Any) -> None:
    with fanline.Task("job", nats=options, **settings) as task:
        task.log("hello")


def _count(options: NatsOptions) -> int:
    """Messages in the stream."""
    with BlockingClient(options) as client:
        info = msgspec.json.decode(client.request("$JS.API.STREAM.INFO.FANLINE_task", b""))
    messages: int = info["state"]["messages"]
    return messages


def _environment(options: NatsOptions) -> dict[str, str]:
    """The same options in the environment, under the names of the server's settings."""
    named = {f"FANLINE_NATS_{name.upper()}": value for name in NAMES if (value := getattr(options, name))}
    return {"FANLINE_NATS": ",".join(options.servers), **named}


@EVERY_LOGIN
async def test_what_a_task_reports_is_stored(open_login: OpenLogin, tmp_path: Path) -> None:
    async with open_login(tmp_path) as login:
        create_stream(login.options)
        await in_thread(lambda: _report(login.options))
        assert _count(login.options) == 3


@EVERY_LOGIN
async def test_a_wrong_login_is_one_warning_and_the_job_is_unharmed(
    open_login: OpenLogin, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def job(options: NatsOptions) -> None:
        with fanline.Task("job", nats=options, linger=0.1) as task:
            task.log("hello")
            while not caplog.messages:
                time.sleep(0.01)

    async with open_login(tmp_path) as login:
        for reason, options in login.wrong.items():
            caplog.clear()
            await in_thread(lambda options=options: job(options))  # type: ignore[misc]
            await wait_until(lambda: len(caplog.messages) >= 2)
            assert caplog.messages[0].startswith("task events are waiting for NATS: ")
            assert caplog.records[0].levelno == logging.WARNING
            assert re.search(reason, caplog.messages[0])
            assert "may be lost" in caplog.messages[1]
            assert len(caplog.messages) == 2


@pytest.mark.parametrize("open_login", [token_login, creds_login, mutual_tls_login])
async def test_the_environment_alone_is_enough_for_a_job_and_for_every_command(
    open_login: OpenLogin, tmp_path: Path
) -> None:
    async with open_login(tmp_path) as login:
        create_stream(login.options)
        environ = _environment(login.options)
        script = "import fanline\nwith fanline.Task('job') as task: task.log('hello')"
        ended = await in_thread(lambda: run_script(script, **environ))
        assert (ended.returncode, ended.stderr) == (0, "")
        assert _count(login.options) == 3
        ran = await in_thread(lambda: _fanline("run", "--task", "cmd", "--", "echo", "hello", environ=environ))
        assert (ran.returncode, ran.stdout) == (0, "hello\n"), ran.stderr
        published = await in_thread(lambda: _fanline("pub", "task:x", "1", environ=environ))
        assert (published.returncode, published.stderr) == (0, "")
        assert _count(login.options) == 3 + 3 + 1


async def test_flags_name_the_files(tmp_path: Path) -> None:
    async with mutual_tls_login(tmp_path) as login:
        create_stream(login.options)
        options = login.options
        flags = ["--nats", ",".join(options.servers)]
        flags += ["--nats-tls-ca", options.tls_ca, "--nats-tls-cert", options.tls_cert]
        flags += ["--nats-tls-key", options.tls_key]
        for command in (["pub", *flags, "task:x", "1"], ["run", *flags, "--", "true"]):
            ended = await in_thread(lambda command=command: _fanline(*command, environ={}))  # type: ignore[misc]
            assert ended.returncode == 0, ended.stderr
        assert _count(options) == 3


async def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    async with token_login(tmp_path) as login:
        flags = ["--nats", login.server.url, "--nats-creds", str(tmp_path / "missing.creds")]
        published = await in_thread(lambda: _fanline("pub", *flags, "task:x", "1", environ={}))
        assert published.returncode == 1
        assert published.stderr.startswith(f"fanline: error: cannot read the NATS credentials {tmp_path}/missing.creds")
        assert len(published.stderr.splitlines()) == 1
        ran = await in_thread(lambda: _fanline("run", *flags, "--", "echo", "unharmed", environ={}))
        assert (ran.returncode, ran.stdout) == (0, "unharmed\n")
        assert "task events are waiting for NATS: cannot read the NATS credentials" in ran.stderr


def _fanline(*args: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if key != "NATS_URL" and not key.startswith("FANLINE_")}
    env = {**clean, "PYTHONPATH": str(ROOT), "FANLINE_STATE_DIR": "/nonexistent", **environ}
    return subprocess.run([*FANLINE, *args], env=env, capture_output=True, text=True, check=False, timeout=SECONDS)


async def test_what_nats_does_not_permit_is_named_and_the_job_does_not_wait(caplog: pytest.LogCaptureFixture) -> None:
    async with running_with_denials(publish="fanline.pub.task.job", subscribe="fanline.ctl.task.job") as login:
        create_stream(login.options)
        await in_thread(lambda: _report(login.options, attempt=1, linger=0.5))
        await wait_until(lambda: "may be lost" in caplog.text)
        assert "NATS does not permit this user to" in caplog.messages[0]
        assert "fanline.ctl.task.job" in caplog.messages[0]


async def test_the_documented_permissions_are_enough_for_a_task_and_its_calls(caplog: pytest.LogCaptureFixture) -> None:
    publish = ["fanline.pub.task.>", "fanline.beat.task.>", "$JS.API.DIRECT.GET.FANLINE_task"]
    permissions = {
        "publish": {"allow": [*publish, "$JS.API.DIRECT.GET.KV_fanline_tasks"]},
        "subscribe": {"allow": ["_INBOX.>", "fanline.ctl.task.>"]},
        "allow_responses": True,
    }
    users = [
        {"user": "producer", "password": "p", "permissions": permissions},
        {"user": "all", "password": "p"},
    ]
    async with running_nats(config=msgspec.json.encode({"authorization": {"users": users}}).decode()[1:-1]) as server:
        everything = NatsOptions((server.url,), user="all", password="p")
        create_stream(everything)

        def call() -> None:
            with BlockingClient(everything) as client:
                answer = client.request("fanline.ctl.task.job", b'{"v":1,"t":"call","c":"task:job","e":"paint"}')
                assert b"does not support `paint`" in answer

        async with fanline.Task("job", nats=NatsOptions((server.url,), user="producer", password="p")) as task:
            await wait_until(lambda: task.attempt == 1)
            await in_thread(call)
        assert _count(everything) == 2
    assert caplog.messages == []


# --- clusters -----------------------------------------------------------------------------------------------------


async def create_replicated(client: NatsClient) -> None:
    """Create the stream with three replicas: on a busy machine a server may just have missed a heartbeat of another."""
    request = msgspec.json.encode({**STREAM, "num_replicas": 3})
    with trio.fail_after(SECONDS):
        while "error" in await client.ask("$JS.API.STREAM.CREATE.FANLINE_task", request):
            await trio.sleep(0.1)


async def test_a_task_goes_on_when_its_server_of_a_cluster_is_killed(caplog: pytest.LogCaptureFixture) -> None:
    async with running_cluster() as cluster:
        first, second, _ = cluster.servers
        async with connect_nats(second.url) as client:
            await create_replicated(client)
            async with fanline.Task("job", nats=first.url, linger=SECONDS) as task:  # the others it learns of
                for number in range(300):
                    task.log(str(number))
                    if number == 100:
                        await StoredTasks(second.url, "", client).wait_for("job", "task_started")
                        first.kill()
                    await trio.sleep(0.002)
        stored = await _eventually_stored(second.url)
    assert lines_of(stored) == list(map(str, range(300)))
    assert len({envelope["i"] for envelope in stored}) == len(stored)


async def _eventually_stored(url: str) -> list[dict[str, Any]]:
    """What is stored of the task once it has ended. During an election a question may never be answered."""
    with trio.fail_after(SECONDS):
        while True:
            with trio.move_on_after(2):
                async with connect_nats(url) as client:
                    stored = await StoredTasks(url, "", client).stored("job")
                    if stored and stored[-1]["e"] == "task_completed":
                        return stored
            await trio.sleep(0.1)


async def test_a_task_leaves_a_server_of_a_cluster_that_is_about_to_stop(caplog: pytest.LogCaptureFixture) -> None:
    async with running_cluster() as cluster:
        first, second, _ = cluster.servers
        async with connect_nats(second.url) as client:
            await create_replicated(client)
            stored = StoredTasks(second.url, "", client)
            async with fanline.Task("job", nats=first.url, linger=SECONDS) as task:
                await stored.wait_for("job", "task_started")
                assert first._process is not None
                first._process.send_signal(signal.SIGUSR2)  # lame duck mode: it closes its clients after 10 seconds
                with trio.fail_after(8):
                    while connections_to(first.port):
                        await trio.sleep(0.02)
                task.log("moved")
                await stored.wait_for("job", "task_output")
    assert caplog.messages == []
