"""docs/how-to/authenticate-with-your-own-code.md, done as it is written."""

import re
import sqlite3
import sys
from pathlib import Path

import trio

from tests.support.paths import ROOT
from tests.support.raw_client import connect_raw
from tests.support.servers.serve import running_serve, serve_environ

PAGE = (ROOT / "docs" / "how-to" / "authenticate-with-your-own-code.md").read_text(encoding="utf-8")
FANLINE = [sys.executable, "-P", "-m", "fanline"]


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


def application(directory: Path) -> None:
    (directory / "guards.py").write_text(block("python"))
    (directory / "fanline.toml").write_text(block("toml"))
    with sqlite3.connect(directory / "app.db") as database:
        database.executescript(
            "CREATE TABLE sessions (id TEXT, user TEXT); CREATE TABLE members (user TEXT, project TEXT);"
            "INSERT INTO sessions VALUES ('s-anna', 'anna'), ('s-eve', 'eve');"
            "INSERT INTO members VALUES ('anna', '7');"
        )


async def test_the_application_of_the_page_works_as_it_says(tmp_path: Path) -> None:
    application(tmp_path)
    with trio.fail_after(90):
        async with running_serve(1, prefix=("env", "-C", str(tmp_path))) as serve:
            url = f"ws://127.0.0.1:{serve.port}/ws"

            async def heard(session: str) -> str:
                """What `fanline sub` says, until one message has come."""
                done = await trio.run_process(
                    [*FANLINE, "sub", "project:7", "--last", "1", "--count", "1", "--url", url],
                    env=serve_environ(serve.directory) | {"FANLINE_TOKEN": session},
                    capture_stdout=True,
                    capture_stderr=True,
                    check=False,
                )
                return (done.stdout + done.stderr).decode()

            published = await trio.run_process(
                [*FANLINE, "pub", "project:7", '{"hello": 1}'], env=serve_environ(serve.directory), check=False
            )
            assert published.returncode == 0
            assert "hello" in await heard("s-anna")
            assert "only members of the project may watch it" in await heard("s-eve")
            assert "authentication required" in await heard("s-nobody")

            async with connect_raw("127.0.0.1", serve.port) as page:
                await page.upgrade(Cookie="session=s-anna")
                assert (await page.json())["d"]["user"] == "anna"
                assert (await page.ask({"v": 1, "t": "sub", "i": "1", "c": "project:7"}))["t"] == "ok"
                with sqlite3.connect(tmp_path / "app.db") as database:
                    database.execute("DELETE FROM members")
                command = re.search(r"^fanline unsubscribe .*$", PAGE, re.MULTILINE)
                assert command
                await trio.run_process(
                    ["sh", "-c", command[0].replace("fanline", " ".join(FANLINE), 1)],
                    env=serve_environ(serve.directory),
                )
                said = await page.json()
                assert (said["t"], said["d"]["message"]) == ("unsub", "you have left the project")
                assert (await page.ask({"v": 1, "t": "sub", "i": "2", "c": "project:7"}))["t"] == "err"
