"""Who may do what in NATS: a store of a former version goes to the engine's account."""

from pathlib import Path

import trio

from fanline.engine.bus.nats.opening import open_nats_bus
from fanline.protocol.nats.options import NatsOptions
from fanline.workers.configuration.settings import Settings
from fanline.workers.embedded_nats.accounts import accounts
from fanline.workers.embedded_nats.data_directory import adopt_store
from fanline.workers.embedded_nats.server import NatsServer, run_nats_server
from tests.support.nats.server import NatsServer as PlainServer


async def test_the_streams_of_a_former_version_and_its_events_without_a_signature_are_there_after_an_upgrade(
    tmp_path: Path,
) -> None:
    with trio.fail_after(30):
        former = PlainServer(tmp_path)  # without accounts, as the embedded server was
        await former.start()
        async with open_nats_bus(NatsOptions((former.url,)), "former") as bus:
            await bus.store("task:1", b'{"e":"task_stalled"}', "e/task:1/x")
            await bus.api("STREAM.DELETE", "KV_fanline_keys", b"")  # there was none
        former.kill()
        async with trio.open_nursery() as nursery:
            server: NatsServer = await nursery.start(run_nats_server, Settings(data_dir=str(tmp_path)), "pid 1", set())
            options = NatsOptions((server.url,), user="engine", password=server.engine_password)
            async with open_nats_bus(options, "now") as bus:
                await bus.store("task:1", b"new", "new")
                found = (await bus.read("task:1", 1)).messages
            nursery.cancel_scope.cancel()
    assert [(each.payload, each.position.signed) for each in found] == [
        (b'{"e":"task_stalled"}', True),
        (b"new", False),
    ]


def test_a_store_that_the_account_has_is_kept(tmp_path: Path) -> None:
    for name in ("$G", "FANLINE"):
        (tmp_path / "jetstream" / name).mkdir(parents=True)
    adopt_store(tmp_path, "FANLINE")
    assert sorted(path.name for path in (tmp_path / "jetstream").iterdir()) == ["$G", "FANLINE"]


def test_producers_may_read_the_streams_of_all_task_namespaces_and_no_others() -> None:
    (user,) = accounts(["task", "build"], "e", "p")["PRODUCERS"]["users"]
    gets = {each for each in user["permissions"]["publish"]["allow"] if "GET" in each}
    assert gets == {f"$JS.API.DIRECT.GET.{each}" for each in ("FANLINE_task", "FANLINE_build", "KV_fanline_tasks")}
