"""Celery: a shop whose jobs publish and list who is there, and in which what happens on the server becomes a job."""

from pathlib import Path

import trio

from tests.integration.backends.shops import SECONDS, customer, heard, running, serving

WORKER = ("-P", "-m", "celery", "-A", "shop", "worker", "--pool", "solo", "--without-gossip", "--without-mingle")
CALL = "import shop, sys; shop.app.tasks[f'shop.{sys.argv[1]}'].delay(*map(eval, sys.argv[2:]))"


async def test_jobs_publish_notify_list_connections_and_receive_a_hook(tmp_path: Path) -> None:
    for name in ("data_in", "control"):  # where kombu looks for them
        (tmp_path / name).mkdir()
    (tmp_path / "data_out").symlink_to("data_in")
    broker = {"BROKER": "filesystem://"}
    async with serving("celery", tmp_path, env=broker) as serve, running(WORKER, tmp_path, serve, **broker):

        async def call(*args: str) -> None:
            async with running(("-c", CALL, *args), tmp_path, serve, **broker) as caller:
                with trio.fail_after(SECONDS):
                    assert await caller.wait() == 0

        async with customer(serve, "anna") as anna:
            assert (await heard(anna, "greeting"))["greeting"]["data"] == {"text": "welcome"}
            await call("pay", "7", "'anna'")
            found = await heard(anna, "order_paid", "notification")
            assert found["order_paid"]["data"] == {"order": 7}
            assert found["notification"]["data"]["message"] == "Order 7 is paid."
            await call("report_online")
            assert (await heard(anna, "online"))["online"]["data"] == {"users": ["anna"]}
