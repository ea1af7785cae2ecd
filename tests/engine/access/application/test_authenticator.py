"""An authenticator decides who a client is, and nobody gets in while it does not."""

import math
import time
from typing import Any

import pytest
import trio

from fanline.engine.access.access import Access
from fanline.engine.access.identity import AccessError
from fanline.engine.access.settings import AccessSettings, AuthMode, TokenSettings
from fanline.engine.access.tokens.verifier import TokenVerifier
from fanline.protocol.auth.revocation import Revocation, encode_revocation
from fanline.protocol.auth.rights import Grants, Right, parse_grant
from fanline.protocol.auth.tokens import secret_key
from fanline.protocol.errors import ErrorCode
from fanline.protocol.handlers import AuthenticateAnswer, AuthenticateRequest, AuthorizeAnswer, ClientIdentity
from fanline.protocol.nats.names import Bucket
from tests.engine.access.application.answering import Answering, Behaviour, Request, answering, client_of
from tests.engine.access.clients import SECRET, token
from tests.engine.running import RunningEngine, running_engine
from tests.support.raw_client import connect_raw, upgrade_request

NAME = "app:authenticate"
ANNA = ClientIdentity(
    user="anna",
    username="Anna",
    organization_id="org-7",
    roles=("editor",),
    channels={"task:*": ("sub",)},
    connections=3,
)
SETTINGS = AccessSettings(authenticator=NAME, everyone=("news:*:sub",), roles={"editor": ("doc:*:pub",)})


def lets_in(identity: ClientIdentity = ANNA) -> Behaviour:
    return lambda _: AuthenticateAnswer(allow=True, identity=identity)


def refuses(_: Request) -> AuthenticateAnswer:
    return AuthenticateAnswer(allow=False, reason="not today")


def access_by(
    answers: Answering,
    *,
    keys: bool = False,
    mode: AuthMode = AuthMode.TOKEN,
    settings: AccessSettings = SETTINGS,
    **times: float,
) -> Access:
    tokens = TokenSettings(secret=SECRET if keys else "")
    verifier = TokenVerifier(tokens, [secret_key(SECRET)]) if keys else None
    return Access(mode, tokens, settings, verifier, client_of(answers, **times))


async def refusal(access: Access, shown: str | None = None, *, may_follow: bool = False) -> AccessError:
    with pytest.raises(AccessError) as raised:
        await access.admit(shown, may_follow=may_follow)
    return raised.value


async def test_without_keys_it_alone_decides_and_gets_the_token_as_it_is() -> None:
    answers = await answering(NAME, lets_in())
    anna = await access_by(answers).admit("session-4711", may_follow=False)
    assert (anna.user, anna.username, anna.roles, anna.connections) == ("anna", "Anna", ("editor",), 3)
    assert anna.organization_id == "org-7"
    assert anna.grants.on("task:1") == Right.SUB
    assert anna.grants.on("doc:1") == Right.PUB  # of the role
    assert anna.grants.on("news:all") == Right.SUB  # of everyone
    assert anna.grants.on("user:anna") == Right.SUB | Right.HISTORY | Right.PRESENCE
    assert anna.grants.on("user:bob") is Right.NONE
    (asked,) = answers.asked
    assert isinstance(asked, AuthenticateRequest)
    assert (asked.token, asked.claims) == ("session-4711", None)


async def test_with_keys_a_token_is_verified_first_and_a_bad_one_is_refused_without_a_question() -> None:
    answers = await answering(NAME, lets_in())
    access = access_by(answers, keys=True)
    for bad in ("rubbish", token(ends_in=-60), token(secret="another secret that is long enough")):
        assert (await refusal(access, bad)).code is ErrorCode.UNAUTHENTICATED
    assert answers.asked == []
    await access.admit(token("bob", tenant="t1"), may_follow=False)
    (asked,) = answers.asked
    assert isinstance(asked, AuthenticateRequest)
    assert asked.claims is not None
    assert (asked.claims["sub"], asked.claims["tenant"]) == ("bob", "t1")


async def test_what_it_says_stands_in_place_of_the_token_which_still_ends_and_is_taken_back() -> None:
    answers = await answering(NAME, lets_in(ClientIdentity(user="anna", expires=time.time() + 999)))
    access = access_by(answers, keys=True)
    shown = token("bob", ends_in=60, jti="j1", iat=time.time() - 5, channels={"*": ["sub"]})
    anna = await access.admit(shown, may_follow=False)
    assert (anna.user, anna.token_id) == ("anna", "j1")
    assert anna.grants.on("task:1") is Right.NONE
    assert anna.expires == pytest.approx(time.time() + 60, abs=5)
    access.is_revoked = lambda identity: identity.token_id == "j1"
    assert "revoked" in str(await refusal(access, shown))


async def test_an_identity_without_a_token_may_have_no_end_and_counts_as_issued_just_now() -> None:
    anna = await access_by(await answering(NAME, lets_in())).admit(None, may_follow=False)
    assert anna.expires == math.inf
    assert anna.issued == pytest.approx(time.time(), abs=5)


@pytest.mark.parametrize("mode", list(AuthMode))
async def test_whom_it_refuses_does_not_get_in_whatever_the_mode_and_anonymous_rights(mode: AuthMode) -> None:
    answers = await answering(NAME, refuses)
    settings = AccessSettings(authenticator=NAME, anonymous=("task:*:sub",))
    access = access_by(answers, mode=mode, settings=settings)
    for shown in (None, "x"):
        error = await refusal(access, shown)
        assert (error.code, str(error)) == (ErrorCode.UNAUTHENTICATED, "not today")


async def test_nor_does_it_become_anonymous_on_a_route_that_lets_such_clients_in() -> None:
    access = access_by(await answering(NAME, refuses))
    route = Grants([parse_grant("task:*:sub")])
    with pytest.raises(AccessError, match="not today"):
        await access.admit(None, may_follow=False, anonymous=route)
    assert not (await access.admit(None, may_follow=True, anonymous=route)).known


async def test_a_client_that_may_show_a_token_later_waits_as_a_stranger() -> None:
    access = access_by(await answering(NAME, refuses))
    assert not (await access.admit(None, may_follow=True)).known
    await refusal(access, "x", may_follow=True)


BROKEN: list[Any] = [
    *(b"", b"{}", b"null", b'{"allow":"yes"}', b'{"allow":true}', b'{"error":"it raised ValueError"}'),
    *(b'{"allow":true,"identity":{"user":7}}', AuthorizeAnswer(allow=True)),
    b'{"allow":true,"identity":{"user":"anna","channels":{"task:*":"sub"}}}',
]


@pytest.mark.parametrize("may_follow", [True, False])
@pytest.mark.parametrize("answer", BROKEN)
async def test_nonsense_lets_nobody_in(answer: Any, may_follow: bool) -> None:
    access = access_by(await answering(NAME, lambda _: answer), mode=AuthMode.OPEN)
    for shown in (None, "x"):
        assert (await refusal(access, shown, may_follow=may_follow)).code is ErrorCode.UNAVAILABLE


async def test_rights_that_cannot_be_read_let_nobody_in() -> None:
    wrong = ClientIdentity(user="anna", channels={"task:*": ("read",)})
    error = await refusal(access_by(await answering(NAME, lets_in(wrong))))
    assert "read" in str(error)


async def test_nobody_gets_in_while_nobody_answers_and_at_once_if_nobody_listens(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    answers = await answering(NAME, lambda _: None)
    access = access_by(answers, timeout=5.0)
    began = trio.current_time()
    assert (await refusal(access)).code is ErrorCode.UNAVAILABLE
    assert trio.current_time() - began == pytest.approx(5.0)
    assert "app:authenticate: it did not answer within 5 s; clients are refused" in caplog.text
    await answers.stop()
    began = trio.current_time()
    assert (await refusal(access)).code is ErrorCode.UNAVAILABLE
    answers.broker.available = False
    assert (await refusal(access)).code is ErrorCode.UNAVAILABLE
    assert trio.current_time() == began


async def test_the_log_says_so_once_and_not_for_each_client(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    access = access_by(await answering(NAME, lambda _: b"{}"))
    for _ in range(50):
        await refusal(access)
    assert len(caplog.records) == 1
    await trio.sleep(11)
    await refusal(access)
    assert len(caplog.records) == 2


def test_an_authenticator_that_cannot_be_asked_is_not_forgotten() -> None:
    with pytest.raises(ValueError, match="client"):
        Access(AuthMode.OPEN, access=SETTINGS)


# --- on the wire --------------------------------------------------------------------------------------------------


async def status(engine: RunningEngine, path: str = "/ws", **headers: str) -> tuple[int, bytes]:
    async with connect_raw(engine.host, engine.port) as client:
        await client.send(upgrade_request(path, subprotocol=None, **headers))
        head = await client.stream.receive_some()
        return int(head.split()[1]), head


async def test_it_hears_what_the_handshake_says_and_plain_clients_are_refused_before_the_upgrade() -> None:
    def behave(request: Request) -> AuthenticateAnswer | bytes:
        assert isinstance(request, AuthenticateRequest)
        if request.token == "broken":
            return b"{}"
        good = request.headers.get("cookie") == "sid=1" or request.token == "good"
        return AuthenticateAnswer(allow=good, identity=ANNA if good else None, reason="" if good else "no session")

    answers = await answering(NAME, behave)
    with trio.fail_after(20):
        async with running_engine(broker=answers.broker, access=access_by(answers)) as engine:
            assert (await status(engine, "/ws?room=7&x=", Cookie="sid=1"))[0] == 101
            asked = answers.asked[-1]
            assert isinstance(asked, AuthenticateRequest)
            assert (asked.path, asked.query, asked.address) == ("/ws", {"room": "7", "x": ""}, "127.0.0.1")
            assert asked.headers["cookie"] == "sid=1"
            assert (await status(engine, Authorization="Bearer good"))[0] == 101
            code, answer = await status(engine)
            assert (code, b"Authentication required" in answer) == (401, True)
            assert (await status(engine, "/ws?token=broken"))[0] == 503


async def test_a_v1_client_is_told_and_comes_back_later_when_nobody_answers() -> None:
    answers = await answering(NAME, lambda _: b"{}")
    with trio.fail_after(20):
        async with running_engine(broker=answers.broker, access=access_by(answers)) as engine:
            async with connect_raw(engine.host, engine.port) as client:
                await client.upgrade()
                assert (await client.json())["d"]["code"] == "unavailable"
                assert await client.closed() == (1013, "try again later")


async def test_a_live_connection_is_asked_about_again_when_it_shows_another_token() -> None:
    def behave(request: Request) -> AuthenticateAnswer:
        assert isinstance(request, AuthenticateRequest)
        if request.token is None:
            return AuthenticateAnswer(allow=False)
        rights = {"task:*": ("sub",)} if request.token == "first" else {}
        return AuthenticateAnswer(allow=True, identity=ClientIdentity(user="anna", channels=rights))

    answers = await answering(NAME, behave)
    with trio.fail_after(20):
        async with running_engine(broker=answers.broker, access=access_by(answers)) as engine:
            async with connect_raw(engine.host, engine.port) as client:
                await client.upgrade()
                assert (await client.json())["t"] == "welcome"
                auth = {"v": 1, "t": "auth", "i": "1", "d": {"token": "first"}}
                assert (await client.ask(auth))["d"]["user"] == "anna"
                assert (await client.ask({"v": 1, "t": "sub", "i": "2", "c": "task:1"}))["t"] == "ok"
                lost = await client.ask(auth | {"d": {"token": "second"}})
                assert (lost["t"], lost["c"], lost["d"]["code"]) == ("unsub", "task:1", "permission_denied")
            stranger, first, second = answers.asked
            assert isinstance(stranger, AuthenticateRequest)
            assert isinstance(first, AuthenticateRequest)
            assert isinstance(second, AuthenticateRequest)
            assert "host" in stranger.headers
            assert first.headers == stranger.headers  # nobody knew yet who it is
            assert (second.headers, second.path, second.address) == ({}, "/ws", "127.0.0.1")


async def test_a_user_who_is_revoked_is_put_out_also_without_a_token_and_may_come_back_if_it_says_so() -> None:
    answers = await answering(NAME, lets_in())
    with trio.fail_after(20):
        async with running_engine(broker=answers.broker, access=access_by(answers)) as engine:
            async with connect_raw(engine.host, engine.port) as client:
                await client.upgrade()
                assert (await client.json())["d"]["user"] == "anna"
                now = time.time()
                revocation = Revocation(user="anna", before=now, until=now + 60)
                await engine.bus.kv_put(Bucket.REVOKED, revocation.key, encode_revocation(revocation), 60)
                with trio.fail_after(1.5):
                    assert (await client.closed())[0] == 4401
            assert (await status(engine))[0] == 101


async def test_a_slow_one_holds_up_nobody_who_does_not_need_it() -> None:
    def behave(request: Request) -> AuthenticateAnswer | None:
        assert isinstance(request, AuthenticateRequest)
        return None if request.token == "slow" else AuthenticateAnswer(allow=True, identity=ANNA)

    answers = await answering(NAME, behave)
    with trio.fail_after(20):
        async with running_engine(broker=answers.broker, access=access_by(answers)) as engine:
            async with connect_raw(engine.host, engine.port) as slow, connect_raw(engine.host, engine.port) as quick:
                await slow.send(upgrade_request("/ws?token=slow"))
                while not answers.waiting:
                    await trio.sleep(0.01)
                await quick.upgrade()
                assert (await quick.json())["d"]["user"] == "anna"
                answers.waiting[0](b'{"allow":true,"identity":{"user":"late"}}')
                head = await slow.stream.receive_some()
                assert b"101" in head
