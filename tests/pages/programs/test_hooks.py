"""docs/how-to/react-to-what-happens.md, done as it is written."""

import json
import re
from pathlib import Path
from typing import Any

import trio

from tests.support.paths import ROOT
from tests.support.raw_client import RawClient, connect_raw
from tests.support.servers.serve import running_serve

PAGE = (ROOT / "docs" / "how-to" / "react-to-what-happens.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


async def heard_until(client: RawClient, wanted: set[str]) -> dict[str, Any]:
    """The messages up to those of the wanted types. That anna is here may be told before she listens, or after."""
    heard: dict[str, Any] = {}
    while not wanted <= heard.keys():
        message = await client.json()
        if message.get("data") != {"text": "anna is here"}:
            heard[message["type"]] = message
    return heard


async def test_the_hooks_of_the_page_work_as_it_says(tmp_path: Path) -> None:  # S4-73
    (tmp_path / "realtime.py").write_text(block("python"))
    (tmp_path / "fanline.toml").write_text(block("toml"))
    connect, subscribe, tea, coffee = re.findall(r"^> (.*)$", PAGE, re.MULTILINE)
    ordered = json.loads(re.findall(r"^< (\{\"type\":\"order_result.*)$", PAGE, re.MULTILINE)[0])
    with trio.fail_after(60):
        async with (
            running_serve(1, prefix=("env", "-C", str(tmp_path))) as serve,
            connect_raw("127.0.0.1", serve.port) as client,
            connect_raw("127.0.0.1", serve.port) as other,
        ):
            await client.upgrade(None)
            await other.upgrade(None)
            assert [(await each.json())["type"] for each in (client, other)] == ["connection_established"] * 2
            assert (await client.ask(json.loads(connect)))["user_id"] == "anna"
            assert (await client.ask(json.loads(subscribe)))["subscribed"] is True
            await client.say(tea)
            heard = await heard_until(client, {"order_result", "item_sold"})
            assert heard["order_result"] | {"timestamp": ""} == ordered | {"timestamp": ""}
            assert heard["item_sold"]["data"] == {"item": "tea", "left": 1, "to": "anna"}
            await client.say(coffee)
            assert (await heard_until(client, {"error"}))["error"]["message"] == "there is no coffee"
            await other.ask({"type": "connect", "user_id": "bob"})
            heard = await heard_until(client, {"log"})
            assert heard["log"]["data"] == {"text": "bob is here"}
