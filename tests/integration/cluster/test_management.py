"""Management calls answer about the whole cluster, whichever of its servers is asked."""

import os
import signal
from collections.abc import Sequence
from itertools import chain

import httpx
import trio

from tests.integration.cluster.servers import call, call_by_owner, called, name_of, two_servers
from tests.integration.monitor.test_monitor import new_key
from tests.support.raw_client import RawClient
from tests.support.servers.serve import Serve

SECONDS = 170


async def test_both_servers_answer_about_all_workers_and_say_which_server_has_what() -> None:
    with trio.fail_after(SECONDS):
        async with two_servers() as pair, pair.on_each_worker() as clients:
            for client in clients:
                assert (await client.ask({"t": "sub", "c": "news:all", "i": "1"}))["t"] == "ok"
            wanted = dict(
                zip(
                    [each.connection for each in clients], chain(*([name_of(s)] * 2 for s in pair.servers)), strict=True
                )
            )
            for serve in pair.servers:
                found = await all_pages(serve, "/connections?channel=news:all&limit=1")
                assert {each["connection_id"]: each["server"] for each in found} == wanted
                assert len(found) == 4
                stats = await called(serve, "/stats")
                assert (stats["total_connections"], stats["active_channels"]) == (4, 1)
                assert sorted(each["server"] for each in stats["per_worker"]) == sorted(wanted.values())
                channels = (await called(serve, "/channels?prefix=news"))["items"]
                assert channels == [{"channel": "news:all", "subscribers": 4}]
                assert (await called(serve, "/info"))["server"] == name_of(serve)
                for each in clients:
                    one = await called(serve, f"/connections/{each.connection}")
                    assert one["server"] == wanted[each.connection]
                await is_sent_to_all(serve, clients)
                own = (await call(serve, "/metrics")).text
                assert own.count("fanline_worker_up{") == 2
            closed = await called(pair.servers[0], f"/connections/{clients[3].connection}/disconnect", {})
            assert closed["disconnected"] == 1


async def all_pages(serve: Serve, path: str) -> list[dict[str, str]]:
    found, after = list[dict[str, str]](), ""
    while True:
        page = await called(serve, f"{path}&after={after}")
        found += page["items"]
        if (after := page["next"]) is None:
            return found


async def is_sent_to_all(serve: Serve, clients: Sequence[RawClient], others: int = 0) -> None:
    """A broadcast by this server reaches every client once, and says so. `others`: connections beside them."""
    sent = await called(serve, "/broadcast", {"message": {"type": "notice", "data": {"by": serve.port}}})
    assert (sent["connections"], sent["workers"]["answered"]) == (len(clients) + others, 4)
    for client in clients:
        while (message := await client.json()).get("e") != "notice":
            pass
        assert message["d"]["by"] == serve.port


async def test_a_key_made_by_one_server_works_at_once_on_the_other_and_is_revoked_at_once() -> None:
    with trio.fail_after(SECONDS):
        async with two_servers() as pair:
            made = await new_key(pair.servers[0], "admin", "read")
            one, other = pair.servers
            assert (await call(other, "/info", key=made)).status_code == 200
            (kept,) = await called(other, "/keys")
            gone = await call(other, f"/keys/{kept['id']}", method="DELETE")
            assert gone.status_code == 200
            for serve in (one, other):
                assert (await call(serve, "/info", key=made)).status_code == 401


async def test_a_server_whose_worker_hangs_is_unhealthy_and_the_others_only_say_so() -> None:
    with trio.fail_after(SECONDS):
        async with two_servers() as pair:
            one, other = pair.servers
            frozen = one.worker_pids()[1]
            found = dict[int, httpx.Response]()
            os.kill(frozen, signal.SIGSTOP)
            try:
                async with trio.open_nursery() as nursery:  # after some seconds it is given up, and asked no more
                    for serve in (one, other):
                        nursery.start_soon(ask_health, serve, found)
            finally:
                os.kill(frozen, signal.SIGCONT)
            ill, well = found[one.port], found[other.port]
            named = f"of {name_of(one)} (pid {frozen})"
            assert (ill.status_code, well.status_code) == (503, 200)
            assert named in ill.json()["workers"]["message"]
            assert ill.json()["cluster"] == {"ok": True, "seconds": None, "message": None}
            assert well.json()["healthy"]
            assert well.json()["workers"]["ok"]
            assert named in well.json()["cluster"]["message"]
            assert well.json()["coverage"]["answered"] == 3


async def ask_health(serve: Serve, found: dict[int, httpx.Response]) -> None:
    found[serve.port] = await call_by_owner(serve, "/health")
