"""A namespace with an authorizer: it alone decides, is remembered for a while, and is taken at its word at once."""

from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio

from fanline.engine.access.application import authorizers as module
from fanline.engine.access.application.authorizers import Authorizers
from fanline.engine.access.identity import EVERYBODY, Identity
from fanline.engine.access.permissions import Permissions
from fanline.engine.access.revoked.removals import Removals
from fanline.engine.access.settings import AuthMode
from fanline.engine.bus.memory import MemoryBroker, MemoryBus
from fanline.engine.namespaces import DEFAULTS, Namespace, Namespaces, Publishers
from fanline.engine.settings import EngineSettings
from fanline.protocol.auth.revocation import REMOVALS, Removal, encode_revocation
from fanline.protocol.auth.rights import EVERY_RIGHT, Grant, Grants, Right
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.handlers import AuthorizeAnswer, AuthorizeRequest, HandlerAnswer
from fanline.protocol.nats.names import Bucket
from tests.engine.access.application.answering import Answering, Behaviour, Request, answering, client_of, until
from tests.engine.access.clients import token, token_access
from tests.engine.running import RunningEngine, running_engine
from tests.support.raw_client import RawClient, connect_raw

NAME = "app:authorize"
NAMESPACES = {"project": Namespace(authorizer=NAME), "board": Namespace(authorizer=NAME, publish=Publishers.BACKEND)}
V1 = "fanline.v1.json"
ALLOW, DENY = AuthorizeAnswer(allow=True), AuthorizeAnswer(allow=False, reason="you are no member")
ANNA = Identity(user="anna", username="Anna", roles=("editor",), token_id="j1", grants=Grants())


class Desk:
    """The rights of one worker, decided by an authorizer that a test plays."""

    def __init__(self, answers: Answering, **settings: float) -> None:
        self.answers = answers
        self.removals = Removals()
        self.authorizers = Authorizers(client_of(answers, **settings), NAMESPACES, self.removals)
        self.permissions = Permissions(Namespaces(NAMESPACES), self.authorizers, closed=True)

    async def says(self, identity: Identity = ANNA, right: Right = Right.SUB, channel: str = "project:7") -> str:
        """`allowed`, or the code of the refusal."""
        try:
            await self.permissions.check(identity, right, channel)
        except MessageError as error:
            return error.code
        return "allowed"


async def desk_of(behave: Behaviour, **settings: float) -> Desk:
    return Desk(await answering(NAME, behave), **settings)


def member_of(*channels: str) -> Behaviour:
    def behave(request: Request) -> HandlerAnswer:
        assert isinstance(request, AuthorizeRequest)
        return ALLOW if request.channel in channels else DENY

    return behave


@pytest.mark.parametrize("right", [Right.SUB, Right.PUB, Right.PRESENCE, Right.HISTORY, Right.CALL, Right.CANCEL])
async def test_it_is_asked_who_wants_to_do_what_where(right: Right) -> None:  # S2-50, S2-51
    desk = await desk_of(member_of("project:7"))
    assert await desk.says(right=right) == "allowed"
    assert await desk.says(right=right, channel="project:8") == "permission_denied"
    asked = desk.answers.asked[0]
    assert isinstance(asked, AuthorizeRequest)
    assert (asked.user, asked.username, asked.roles, asked.token_id) == ("anna", "Anna", ("editor",), "j1")
    assert (Right[asked.right.upper()], asked.channel, asked.granted) == (right, "project:7", False)


async def test_it_alone_decides_whatever_a_token_or_a_role_grants() -> None:
    admin = Identity(user="root", roles=("admin",), grants=Grants([Grant("*", EVERY_RIGHT)]))
    desk = await desk_of(lambda _: DENY)
    assert await desk.says(admin) == "permission_denied"
    assert await desk.says(EVERYBODY) == "permission_denied"
    asked = desk.answers.asked[0]
    assert isinstance(asked, AuthorizeRequest)
    assert asked.granted
    assert await desk.says(admin, channel="task:1") == "allowed"  # another namespace
    assert await desk.says(ANNA, channel="task:1") == "permission_denied"
    assert len(desk.answers.asked) == 2


async def test_its_own_sentence_is_told() -> None:
    desk = await desk_of(lambda _: DENY)
    with pytest.raises(MessageError, match="you are no member"):
        await desk.permissions.check(ANNA, Right.SUB, "project:7")


async def test_what_the_namespace_rules_out_is_not_asked() -> None:
    desk = await desk_of(lambda _: ALLOW)
    assert await desk.says(right=Right.PUB, channel="board:1") == "permission_denied"
    assert desk.answers.asked == []


BROKEN: list[Any] = [b"", b"yes", b"{}", b'{"allow":1}', b'{"allow":"true"}', b'{"error":"it raised KeyError"}', None]


@pytest.mark.parametrize("answer", BROKEN)
async def test_what_is_no_clear_answer_allows_nothing(answer: Any, autojump_clock: trio.testing.MockClock) -> None:
    desk = await desk_of(lambda _: answer)
    assert await desk.says() == "unavailable"
    await desk.answers.stop()
    assert await desk.says() == "unavailable"
    desk.answers.broker.available = False
    assert await desk.says() == "unavailable"


# --- what is remembered -------------------------------------------------------------------------------------------


async def test_what_it_allows_is_remembered_for_the_time_of_the_settings(
    autojump_clock: trio.testing.MockClock,
) -> None:
    desk = await desk_of(lambda _: ALLOW, cache=30.0)
    for _ in range(3):
        assert await desk.says() == "allowed"
    assert len(desk.answers.asked) == 1
    await desk.answers.stop()
    assert await desk.says() == "allowed"
    await trio.sleep(31)
    assert await desk.says() == "unavailable"


async def test_an_answer_may_say_how_long_it_holds_and_a_refusal_only_holds_if_it_says_so(
    autojump_clock: trio.testing.MockClock,
) -> None:
    answer = AuthorizeAnswer(allow=True, ttl=2.0)
    desk = await desk_of(lambda _: answer)
    assert await desk.says() == "allowed"
    answer = AuthorizeAnswer(allow=False, ttl=2.0)
    assert await desk.says() == "allowed"
    await trio.sleep(2.5)
    assert await desk.says() == "permission_denied"
    answer = DENY
    assert await desk.says() == "permission_denied"
    assert len(desk.answers.asked) == 2
    await trio.sleep(2.5)
    assert await desk.says() == "permission_denied"
    answer = ALLOW
    assert await desk.says() == "allowed"  # a refusal without a ttl is asked again at once
    answer = AuthorizeAnswer(allow=True, ttl=0.0)
    assert await desk.says(channel="project:8") == "allowed"
    assert await desk.says(channel="project:8") == "allowed"
    assert len(desk.answers.asked) == 6


@pytest.mark.parametrize(
    "other",
    [
        Identity(user="bob", username="Anna", roles=("editor",), token_id="j1", grants=Grants()),
        Identity(user="anna", username="A.", roles=("editor",), token_id="j1", grants=Grants()),
        Identity(user="anna", username="Anna", roles=(), token_id="j1", grants=Grants()),
        Identity(user="anna", username="Anna", roles=("editor",), token_id="j2", grants=Grants()),
        Identity(
            user="anna",
            username="Anna",
            roles=("editor",),
            token_id="j1",
            grants=Grants([Grant("project:*", EVERY_RIGHT)]),
        ),
        Identity(username="Anna", roles=("editor",), token_id="j1", grants=Grants()),
    ],
)
async def test_nobody_gets_the_answer_that_was_given_for_another(other: Identity) -> None:
    def behave(request: Request) -> HandlerAnswer:
        assert isinstance(request, AuthorizeRequest)
        return ALLOW if len(desk.answers.asked) == 1 else DENY

    desk = await desk_of(behave)
    assert await desk.says() == "allowed"
    assert await desk.says(other) == "permission_denied"
    assert await desk.says(right=Right.PUB) == "permission_denied"
    assert await desk.says(channel="project:70") == "permission_denied"


async def test_what_is_remembered_is_bounded_and_the_oldest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_REMEMBERED", 10)
    desk = await desk_of(lambda _: ALLOW)
    for number in range(30):
        await desk.says(channel=f"project:{number}")
    assert len(desk.authorizers) == 10
    desk.answers.behave = lambda _: DENY
    assert await desk.says(channel="project:29") == "allowed"
    assert await desk.says(channel="project:19") == "permission_denied"


async def test_a_removal_makes_it_be_asked_again_also_if_the_answer_was_on_its_way() -> None:
    desk = await desk_of(lambda _: ALLOW)
    bob = Identity(user="bob", grants=Grants())
    assert await desk.says() == await desk.says(bob) == "allowed"
    desk.authorizers.forget({"anna": [Removal(user="anna", channel="project:7")]})
    desk.answers.behave = lambda _: None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.says)
        await until(lambda: bool(desk.answers.waiting))
        desk.removals.add(Removal(user="anna", channel="project:7"))
        desk.answers.waiting[0](b'{"allow":true}')
    desk.answers.behave = lambda _: DENY
    assert await desk.says() == "permission_denied"
    assert await desk.says(bob) == "allowed"


# --- connections --------------------------------------------------------------------------------------------------


async def enter(
    stack: AsyncExitStack, engine: RunningEngine, user: str = "anna", subprotocol: str | None = "fanline.v1.json"
) -> RawClient:
    client = await stack.enter_async_context(connect_raw(engine.host, engine.port))
    await client.upgrade(subprotocol, Authorization=f"Bearer {token(user)}")
    await client.json()
    return client


def sub(channel: str, request: str = "s") -> dict[str, Any]:
    return {"v": 1, "t": "sub", "i": request, "c": channel}


SETTINGS = EngineSettings(namespaces={**DEFAULTS, **NAMESPACES})


async def start(stack: AsyncExitStack, answers: Answering, **settings: float) -> RunningEngine:
    access = token_access(handlers=client_of(answers, **settings))
    return await stack.enter_async_context(running_engine(SETTINGS, broker=answers.broker, access=access))


async def test_a_slow_answer_holds_up_its_own_client_in_order_and_nobody_else() -> None:
    def behave(request: Request) -> HandlerAnswer | None:
        assert isinstance(request, AuthorizeRequest)
        return None if request.channel == "project:slow" else ALLOW

    answers = await answering(NAME, behave, MemoryBroker(Namespaces(SETTINGS.namespaces)))
    with trio.fail_after(20):
        async with AsyncExitStack() as stack:
            engine = await start(stack, answers)
            anna, bob = await enter(stack, engine), await enter(stack, engine, "bob")
            await anna.say(sub("project:slow", "1"))
            await anna.say({"v": 1, "t": "ping", "i": "2"})
            while not answers.waiting:
                await trio.sleep(0.01)
            assert (await bob.ask(sub("project:7")))["t"] == "ok"
            answers.waiting[0](b'{"allow":true}')
            assert [(await anna.json())["i"], (await anna.json())["i"]] == ["1", "2"]


async def removed(engine: RunningEngine, user: str, channel: str, reason: str = "", key: str = "a") -> None:
    value = encode_revocation(Removal(user=user, channel=channel, reason=reason))
    await MemoryBus(engine.broker).kv_put(Bucket.REVOKED, f"{REMOVALS}.{key}", value, 600)


async def test_a_user_who_is_removed_loses_the_channel_within_a_second_on_every_worker() -> None:
    members = {"anna", "bob"}

    def behave(request: Request) -> HandlerAnswer:
        assert isinstance(request, AuthorizeRequest)
        return ALLOW if request.user in members else DENY

    answers = await answering(NAME, behave, MemoryBroker(Namespaces(SETTINGS.namespaces)))
    with trio.fail_after(20):
        async with AsyncExitStack() as stack:
            engines = [await start(stack, answers) for _ in range(2)]
            annas = [await enter(stack, engine) for engine in engines]
            plain = await enter(stack, engines[0], subprotocol=None)
            bob = await enter(stack, engines[1], "bob")
            for client in (*annas, bob):
                for channel in ("project:7", "project:8"):
                    assert (await client.ask(sub(channel)))["t"] == "ok"
            assert (await plain.ask({"type": "subscribe", "channel": "project:7"}))["subscribed"] is True
            members.remove("anna")
            await removed(engines[0], "anna", "project:7", "you have left")
            with trio.fail_after(1.5):
                for client in annas:
                    said = await client.json()
                    assert (said["t"], said["c"]) == ("unsub", "project:7")
                    assert said["d"] == {"code": "permission_denied", "message": "you have left"}
                said = await plain.json()
                assert (said["type"], said["channel"], said["reason"]) == ("unsubscribed", "project:7", "you have left")
            await engines[0].bus.publish("project:7", b'{"secret":1}')
            assert (await bob.json())["d"] == {"secret": 1}
            for client in annas:
                assert (await client.ask(sub("project:7")))["d"]["code"] == "permission_denied"
                assert (await client.ask(sub("project:8")))["t"] == "ok"


@pytest.mark.parametrize(
    ("removal", "ended", "kept"),
    [
        ("project:7", {"project:7", "project:*"}, {"project:8", "task:7"}),
        ("project:*", {"project:7", "project:8", "project:*"}, {"task:7"}),
    ],
)
async def test_a_removal_ends_all_that_brings_the_channel_to_the_user(
    removal: str, ended: set[str], kept: set[str]
) -> None:
    answers = await answering(NAME, lambda _: ALLOW, MemoryBroker(Namespaces(SETTINGS.namespaces)))
    with trio.fail_after(20):
        async with AsyncExitStack() as stack:
            engine = await start(stack, answers)
            anna = await stack.enter_async_context(connect_raw(engine.host, engine.port))
            await anna.upgrade(V1, Authorization=f"Bearer {token('anna', channels={'task:*': ['sub']})}")
            await anna.json()
            for channel in ended | kept:
                assert (await anna.ask(sub(channel)))["t"] == "ok"
            await removed(engine, "anna", removal, "you have left")
            said = [await anna.json() for _ in ended]
            assert {(each["t"], each["c"], each["d"]["message"]) for each in said} == {
                ("unsub", channel, "you have left") for channel in ended
            }
            assert (await anna.ask({"v": 1, "t": "ping", "i": "p"}))["t"] == "pong"
            answers.behave = lambda _: DENY
            for channel in ended:  # no answer from before is remembered
                assert (await anna.ask(sub(channel)))["d"]["code"] == "permission_denied"


@pytest.mark.parametrize("channel", ["project:7", "project:*"])
async def test_a_removal_that_comes_while_a_client_subscribes_finds_it(channel: str) -> None:
    answers = await answering(NAME, lambda _: None, MemoryBroker(Namespaces(SETTINGS.namespaces)))
    with trio.fail_after(20):
        async with AsyncExitStack() as stack:
            engine = await start(stack, answers)
            anna = await enter(stack, engine)
            await anna.say(sub(channel))
            while not answers.waiting:
                await trio.sleep(0.01)
            await removed(engine, "anna", "project:7")
            await trio.sleep(1.0)  # more than the pause between two looks
            answers.waiting[0](b'{"allow":true}')
            assert (await anna.json())["t"] == "ok"
            assert (await anna.json())["t"] == "unsub"


async def test_a_removal_counts_once_also_after_an_outage() -> None:
    answers = await answering(NAME, lambda _: ALLOW, MemoryBroker(Namespaces(SETTINGS.namespaces)))
    with trio.fail_after(20):
        async with AsyncExitStack() as stack:
            engine = await start(stack, answers)
            anna = await enter(stack, engine)
            await anna.ask(sub("project:7"))
            await removed(engine, "anna", "project:7")
            assert (await anna.json())["t"] == "unsub"
            assert (await anna.ask(sub("project:7")))["t"] == "ok"
            engine.bus.on_loss(0.0)
            await removed(engine, "anna", "project:8", key="b")
            await trio.sleep(1.0)  # more than the pause between two looks
            assert (await anna.ask({"v": 1, "t": "ping", "i": "p"}))["t"] == "pong"


async def test_another_token_has_the_authorizer_asked_again_about_each_channel() -> None:
    allowed = {"project:1", "project:2", "project:3"}

    def behave(request: Request) -> HandlerAnswer | None:
        assert isinstance(request, AuthorizeRequest)
        return None if request.channel == "project:3" and len(allowed) < 3 else member_of(*allowed)(request)  # type: ignore[return-value]

    answers = await answering(NAME, behave, MemoryBroker(Namespaces(SETTINGS.namespaces)))
    with trio.fail_after(20):
        async with AsyncExitStack() as stack:
            engine = await start(stack, answers, timeout=0.2)
            anna = await enter(stack, engine)
            for channel in sorted(allowed):
                assert (await anna.ask(sub(channel)))["t"] == "ok"
            allowed.remove("project:1")
            await anna.say({"v": 1, "t": "auth", "i": "a", "d": {"token": token(jti="another")}})
            said = [await anna.json() for _ in range(3)]
            ended = {each["c"]: each["d"]["code"] for each in said[:2]}
            assert ended == {"project:1": "permission_denied", "project:3": "unavailable"}
            assert said[2]["t"] == "ok"


async def test_a_namespace_without_an_authorizer_asks_nobody_in_any_mode() -> None:
    answers = await answering(NAME, lambda _: DENY)
    desk = Desk(answers)
    for mode in AuthMode:
        assert await Desk(answers).says(EVERYBODY, channel="task:1") == "allowed", mode
    assert await desk.says(EVERYBODY, channel="other:1") == ErrorCode.PERMISSION_DENIED  # nobody configured it
    assert answers.asked == []
