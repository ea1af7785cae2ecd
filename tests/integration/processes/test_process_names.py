"""Our processes have names, in ps and in top; and `fanline serve` takes Ctrl-C from its first moment on."""

import sys
from pathlib import Path

import pytest
import trio

from tests.support.programs.interrupted import interrupted_at
from tests.support.servers.serve import children_of, running_serve, serve_environ, wait_until

NAMES = {
    "fanline: worker 0": "fanline worker0",
    "fanline: worker 1": "fanline worker1",
    "fanline: control": "fanline control",
}


def _names(parent: int) -> dict[str, str]:
    """The long and the short name of each process but nats-server."""
    children = [(pid, command) for pid, command in children_of(parent) if "nats-server" not in command]
    return {command.partition(" (")[0]: Path(f"/proc/{pid}/comm").read_text().strip() for pid, command in children}


async def test_ps_shows_what_each_process_is() -> None:
    with trio.fail_after(60):
        async with running_serve(env={"FANLINE_CONTROL": "true"}) as serve:
            await wait_until(lambda: _names(serve.pid) == NAMES)
            listed = await trio.run_process(["ps", "-o", "args=", "-p", str(serve.pid)], capture_stdout=True)
            assert listed.stdout.startswith(b"fanline: serve --port 0 --workers 2")


@pytest.mark.parametrize("module", ["typer.main", "trio._core._run", "fanline.workers.configuration.loading"])
async def test_ctrl_c_while_a_server_is_imported_ends_it_without_a_traceback(module: str, tmp_path: Path) -> None:
    with trio.fail_after(60):
        serve = [sys.executable, "-P", "-m", "fanline", "serve", "--port", "0", "--data-dir", str(tmp_path / "data")]
        _, text = await interrupted_at(module, serve, serve_environ(tmp_path))
    assert "Traceback" not in text
