"""FastAPI and Django: a shop that publishes, lists who is there, and receives a hook."""

import time
from pathlib import Path

import pytest

from fanline.protocol.hooks.signing import key_of, signed_headers
from tests.integration.backends.shops import SECRET, customer, heard, shop
from tests.support.servers.free_port import free_port

COMMANDS = {
    "fastapi": ("-P", "-m", "hypercorn", "shop:app", "--bind", "127.0.0.1:{port}"),
    "django": ("-P", "shop.py", "runserver", "--noreload", "127.0.0.1:{port}"),
}


@pytest.mark.parametrize("name", COMMANDS)
async def test_a_shop_publishes_notifies_lists_connections_and_receives_a_hook(name: str, tmp_path: Path) -> None:
    port = free_port()
    command = [part.format(port=port) for part in COMMANDS[name]]
    async with shop(name, command, tmp_path, port) as backend:
        assert (await backend.ask("GET", "/online")).value == []
        async with customer(backend.serve, "anna") as anna, customer(backend.serve, "bert") as bert:
            assert (await backend.ask("GET", "/online")).value == ["anna", "bert"]
            assert (await backend.ask("POST", "/orders/7/pay?user=anna")).value == {"paid": 7}
            found = await heard(anna, "order_paid", "greeting", "notification")
            assert found["notification"]["data"]["message"] == "Order 7 is paid."
            assert found["order_paid"]["data"] == {"order": 7}
            assert found["greeting"]["data"] == {"text": "welcome"}
            await heard(bert, "order_paid", "greeting")
        body = b'{"events":[]}'
        genuine = signed_headers(key_of(SECRET), "batch_1", int(time.time()), body)
        assert (await backend.ask("POST", "/fanline/events", body, genuine)).status in (200, 204)
        for forged in ({**genuine, "webhook-id": "batch_2"}, {}):
            assert (await backend.ask("POST", "/fanline/events", body, forged)).status == 401
