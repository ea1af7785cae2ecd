"""Presence over two real workers, one of which is killed: its users are gone in time, or back unnoticed."""

import secrets
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio

from fanline.engine.presence.attendance import LINGER_SECONDS
from fanline.protocol.auth.tokens import sign
from tests.support.raw_client import RawClient, upgrade_request
from tests.support.servers.serve import Serve, kill, running_serve
from tests.support.tasks.on_worker import worker_of

SECRET = secrets.token_hex(32)
USERS = 1000
RIGHT_SECONDS = 10.0
"""After the death of a worker; users who are back by then were never away."""
UNNOTICED_SECONDS = LINGER_SECONDS - 2
"""Who is back within this time was never away; on a busy machine not all of hundreds are."""
_SETTINGS = f"""
auth = "token"
[tokens]
secret = "{SECRET}"
[namespaces.room]
presence = true
"""
_GONE = (OSError, trio.BrokenResourceError, trio.EndOfChannel, trio.ClosedResourceError, AssertionError)


@asynccontextmanager
async def running_rooms(directory: Path) -> AsyncIterator[Serve]:
    (directory / "fanline.toml").write_text(_SETTINGS)
    async with running_serve(2, ("--config", str(directory / "fanline.toml"))) as serve:
        yield serve


class Member(RawClient):
    """Reads the answer to its handshake at once: byte by byte, hundreds that come back would take seconds."""

    async def shake_hands(self, token: str) -> None:
        await self.send(upgrade_request(Authorization=f"Bearer {token}"))
        data = b""
        while b"\r\n\r\n" not in data:
            data += await self.stream.receive_some() or b"\r\n\r\n"
        head, _, rest = data.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        self._messages.extend(self._reader.feed(rest))


@asynccontextmanager
async def member(serve: Serve, user: str, *, viewer: bool = False) -> AsyncIterator[RawClient]:
    """A client of this user on the channel."""
    claims = {"sub": user, "exp": 4e9, "channels": {"room:*": ["sub", "presence"]}}
    async with await trio.open_tcp_stream("127.0.0.1", serve.port) as stream:
        client = Member(stream)
        await client.shake_hands(sign(claims, SECRET.encode()))
        await client.message()
        reply = await client.ask({"t": "sub", "c": "room:1", "i": "1", "d": {"presence": viewer}})
        assert reply["t"] == "ok", reply
        yield client


class Crowd:
    """Users with one connection each. Those whose worker dies come back after `comes_back` seconds; None: never."""

    def __init__(self, serve: Serve, comes_back: float | None) -> None:
        self._serve = serve
        self._comes_back = comes_back
        self.here: set[str] = set()
        self.lost: set[str] = set()
        self.came_at: dict[str, float] = {}

    async def run(self, user: str) -> None:
        while user not in self.lost or self._comes_back is not None:
            with suppress(*_GONE):
                async with member(self._serve, user) as client:
                    self.here.add(user)
                    self.came_at[user] = trio.current_time()
                    await client.closed()
            if user in self.here:
                self.here.remove(user)
                self.lost.add(user)
            await trio.sleep(self._comes_back or 0)


class Listener:
    """A viewer that survives, with what it was told."""

    def __init__(self, client: RawClient) -> None:
        self._client = client
        self.told: list[tuple[str, str]] = []
        self.listed: set[str] = set()
        self._answered = trio.Event()

    async def run(self) -> None:
        while True:
            envelope = await self._client.json()
            if envelope["t"] in ("join", "leave") and envelope["u"] != "listener":  # its own join may come late
                self.told.append((envelope["t"], envelope["u"]))
            elif envelope.get("i") == "who":
                self.listed = {user["user_id"] for user in envelope["d"]["users"]}
                self._answered.set()

    async def ask(self) -> set[str]:
        self._answered = trio.Event()
        await self._client.say({"t": "presence", "c": "room:1", "i": "who"})
        await self._answered.wait()
        return self.listed

    async def wait_list(self, crowd: Crowd, count: int) -> None:
        """Wait until the list is the truth, and this many are on it besides the listener."""
        while len(crowd.here) != count or await self.ask() - {"listener"} != crowd.here:
            await trio.sleep(0.05)


@pytest.mark.parametrize("comes_back", [None, 0.5])
async def test_users_of_a_killed_worker_are_gone_within_ten_seconds_or_back_unnoticed(
    tmp_path: Path, comes_back: float | None
) -> None:
    with trio.fail_after(120):
        async with running_rooms(tmp_path) as serve, trio.open_nursery() as nursery:
            crowd = Crowd(serve, comes_back)
            users = {f"user-{number}" for number in range(USERS - 100)}
            for user in users:
                nursery.start_soon(crowd.run, user)
            async with member(serve, "listener", viewer=True) as client, trio.open_nursery() as listening:
                listener = Listener(client)
                listening.start_soon(listener.run)
                await listener.wait_list(crowd, len(users))
                survivor = worker_of(serve, client)
                [victim] = [pid for pid in serve.worker_pids() if pid != survivor]
                listener.told.clear()
                killed = trio.current_time()
                await kill(victim)
                while not crowd.lost:
                    await trio.sleep(0.01)
                await trio.sleep(0.5)
                assert len(crowd.lost) > len(users) / 4, "the kernel has given the victim hardly any connections"
                expected = users if comes_back else users - crowd.lost
                with trio.fail_after(RIGHT_SECONDS - (trio.current_time() - killed)):
                    await listener.wait_list(crowd, len(expected))
                took = trio.current_time() - killed
                await trio.sleep_until(killed + RIGHT_SECONDS)
                assert await listener.ask() - {"listener"} == expected
                told = Counter(listener.told)
                if comes_back:
                    late = {user for user in crowd.lost if crowd.came_at[user] > killed + UNNOTICED_SECONDS}
                    assert {user for _, user in told} <= late, f"right after {took:.1f} s"
                    assert set(told.values()) <= {1}
                else:
                    assert told == dict.fromkeys([("leave", user) for user in crowd.lost], 1), f"after {took:.1f} s"
                listening.cancel_scope.cancel()
            nursery.cancel_scope.cancel()
