"""Who gets in, by mode and token, without a socket."""

from collections.abc import Sequence
from typing import NoReturn

import pytest
import trio

from fanline.engine.access.access import Access
from fanline.engine.access.application.authorizers import Authorizers
from fanline.engine.access.application.handlers import HandlerClient
from fanline.engine.access.identity import DEVELOPER, EVERYBODY, AccessError, Identity
from fanline.engine.access.permissions import Permissions
from fanline.engine.access.revoked.removals import Removals
from fanline.engine.access.settings import AccessSettings, AuthMode, TokenSettings
from fanline.engine.access.tokens.verifier import TokenVerifier
from fanline.engine.bus.memory import MemoryBroker, MemoryBus
from fanline.engine.namespaces import Namespace, Namespaces
from fanline.protocol.auth.rights import EVERY_RIGHT, GrantError, Right
from fanline.protocol.auth.tokens import VerifyingKey, secret_key
from fanline.protocol.errors import ErrorCode, MessageError
from tests.engine.access.clients import SECRET, token, token_access

DEVELOPMENT, TOKEN, OPEN = AuthMode.DEVELOPMENT, AuthMode.TOKEN, AuthMode.OPEN
ANYBODY = {DEVELOPMENT: DEVELOPER, OPEN: EVERYBODY}
"""Who everybody is where no token counts; in development mode, everybody manages the server as well."""
ANONYMOUS = AccessSettings(anonymous=("task:*:sub",))


@pytest.mark.parametrize("mode", [DEVELOPMENT, OPEN])
async def test_without_keys_tokens_are_ignored_and_everybody_may_do_everything(mode: AuthMode) -> None:
    access = Access(mode)
    for shown in (None, token(), "rubbish"):
        assert await access.admit(shown, may_follow=False) is ANYBODY[mode]
        assert await access.identify(shown) is ANYBODY[mode]


@pytest.mark.parametrize("mode", [DEVELOPMENT, OPEN])
async def test_with_keys_a_token_counts_in_every_mode_and_none_is_needed(mode: AuthMode) -> None:
    access = token_access(mode=mode)
    assert await access.admit(None, may_follow=False) is ANYBODY[mode]
    anna = await access.admit(token(), may_follow=False)
    assert (anna.user, anna.grants.on("task:1")) == ("anna", Right.NONE)
    with pytest.raises(AccessError):
        await access.admit("rubbish", may_follow=False)


async def test_in_token_mode_nobody_gets_in_without_a_token() -> None:  # S3-43
    access = token_access()
    for refused in (None, "", "rubbish", token(secret="another secret that is long enough"), token(ends_in=-11)):
        with pytest.raises(AccessError) as raised:
            await access.admit(refused, may_follow=False)
        assert raised.value.code is ErrorCode.UNAUTHENTICATED
        with pytest.raises(AccessError):
            await access.identify(refused)


async def test_a_client_that_may_send_its_token_later_is_let_in_as_a_stranger_for_a_while() -> None:
    stranger = await token_access(timeout=7.0).admit(None, may_follow=True)
    assert not stranger.known
    assert stranger.grants.on("task:1") is Right.NONE
    access = Access(TOKEN, TokenSettings(timeout=7.0), clock=lambda: 1000.0)
    assert (await access.admit(None, may_follow=True)).expires == 1007.0


async def test_a_bad_token_is_refused_also_where_none_would_do() -> None:
    for mode, access in ((TOKEN, ANONYMOUS), (DEVELOPMENT, None), (OPEN, None)):
        with pytest.raises(AccessError):
            await token_access(access, mode).admit(token(ends_in=-60), may_follow=True)


async def test_anonymous_clients_have_the_rights_of_the_settings_alone() -> None:
    anybody = await token_access(ANONYMOUS).admit(None, may_follow=False)
    assert anybody.known
    assert anybody.user is None
    assert anybody.grants.on("task:1") == Right.SUB
    assert anybody.grants.on("user:anna") is Right.NONE


async def test_rights_come_from_the_token_its_roles_and_what_everyone_may_do() -> None:  # S2-49
    settings = AccessSettings(everyone=("news:*:sub",), roles={"editor": ("doc:*:pub",), "none": ()})
    shown = token(roles=["editor", "none", "unknown"], channels={"task:42": ["call"]})
    anna = await token_access(settings).identify(shown)
    assert anna.grants.on("news:all") == Right.SUB
    assert anna.grants.on("doc:1") == Right.PUB
    assert anna.grants.on("task:42") == Right.CALL
    assert anna.grants.on("user:anna") == Right.SUB | Right.HISTORY | Right.PRESENCE
    assert anna.grants.on("user:bob") is Right.NONE
    assert anna.grants.on("system:all") is Right.NONE


@pytest.mark.parametrize("role", ["admin", "super_admin"])
async def test_admins_may_do_everything_unless_the_settings_say_otherwise(role: str) -> None:  # S2-53
    admin = await token_access().identify(token(roles=[role]))
    assert admin.grants.on("system:all") == EVERY_RIGHT
    bounded = await token_access(AccessSettings(roles={role: ("system:*:sub",)})).identify(token(roles=[role]))
    assert (bounded.grants.on("system:all"), bounded.grants.on("task:1")) == (Right.SUB, Right.NONE)


async def test_a_token_without_a_user_is_good_for_what_it_says_alone() -> None:
    guest = await token_access(AccessSettings(everyone=("news:*:sub",))).identify(
        token(None, channels={"task:42": ["sub"]})
    )
    assert guest.user is None
    assert (guest.grants.on("task:42"), guest.grants.on("news:all")) == (Right.SUB, Right.NONE)


@pytest.mark.parametrize("wrong", ["task", "task:*:read", "Task:*:sub"])
def test_settings_that_cannot_be_read_are_refused_at_the_start(wrong: str) -> None:
    for settings in (
        AccessSettings(everyone=(wrong,)),
        AccessSettings(anonymous=(wrong,)),
        AccessSettings(roles={"x": (wrong,)}),
    ):
        with pytest.raises(GrantError, match=r"right|pattern|grant"):
            token_access(settings)


# --- permissions --------------------------------------------------------------------------------------------------

NAMESPACES = {"news": Namespace()}


def permissions(*, closed: bool) -> Permissions:
    nobody = Authorizers(HandlerClient(MemoryBus(MemoryBroker())), NAMESPACES, Removals())
    return Permissions(Namespaces(NAMESPACES), nobody, closed=closed)


async def denied(identity: Identity, right: Right, channel: str) -> bool:
    try:
        await permissions(closed=True).check(identity, right, channel)
    except MessageError as error:
        return error.code is ErrorCode.PERMISSION_DENIED
    return False


async def test_a_namespace_that_nobody_configured_is_closed_where_tokens_rule() -> None:  # S2-54
    admin = await token_access().identify(token(roles=["admin"]))
    closed, opened = permissions(closed=True), permissions(closed=False)
    for right in (Right.SUB, Right.PUB, Right.CALL, Right.PRESENCE, Right.HISTORY):
        await closed.check(admin, right, "news:all")
        await opened.check(EVERYBODY, right, "rumours:all")
        with pytest.raises(MessageError, match=r"rumours is not configured .* no \[namespaces.rumours\]"):
            await closed.check(admin, right, "rumours:all")


@pytest.mark.parametrize(
    "held", [Right.NONE, Right.SUB, Right.PUB, Right.PRESENCE, Right.HISTORY, Right.CALL, EVERY_RIGHT]
)
@pytest.mark.parametrize("asked", [Right.SUB, Right.PUB, Right.PRESENCE, Right.HISTORY, Right.CALL, Right.CANCEL])
async def test_each_right_is_asked_for_itself(held: Right, asked: Right) -> None:
    names = {
        Right.SUB: "sub",
        Right.PUB: "pub",
        Right.PRESENCE: "presence",
        Right.HISTORY: "history",
        Right.CALL: "call",
    }
    granted = [name for right, name in names.items() if right in held]
    anna = await token_access().identify(token(channels={"task:42": granted}))
    assert await denied(anna, asked, "task:42") is (asked not in held)
    assert await denied(anna, asked, "task:43")


async def test_not_even_an_admin_publishes_where_only_the_backend_does() -> None:
    admin = await token_access().identify(token(roles=["admin"]))
    with pytest.raises(MessageError, match="only the backend"):
        await permissions(closed=True).check(admin, Right.PUB, "system:all")


# --- key sets -----------------------------------------------------------------------------------------------------


class Provider:
    """An identity provider whose keys change."""

    def __init__(self, *keys: VerifyingKey) -> None:
        self.keys: Sequence[VerifyingKey] = ()
        self.offered = keys
        self.asked = 0

    async def run(self) -> NoReturn:
        await trio.sleep_forever()

    async def refresh(self) -> None:
        self.asked += 1
        self.keys = self.offered


async def test_an_unknown_key_is_looked_for_once_and_known_ones_are_not() -> None:
    provider = Provider(secret_key(SECRET))
    access = Access(TOKEN, verifier=TokenVerifier(TokenSettings(), key_set=provider))
    assert (await access.identify(token())).user == "anna"
    assert (await access.identify(token())).user == "anna"
    assert provider.asked == 1


async def test_while_no_keys_could_be_read_the_server_is_unavailable_and_the_token_is_not_wrong() -> None:
    with pytest.raises(AccessError) as raised:
        await Access(TOKEN, verifier=TokenVerifier(TokenSettings(), key_set=Provider())).identify(token())
    assert raised.value.code is ErrorCode.UNAVAILABLE
