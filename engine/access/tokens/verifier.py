"""Verifies tokens with the keys of the settings, and with those of an identity provider."""

from collections.abc import Sequence
from typing import NoReturn, Protocol

import trio

from fanline.engine.access.identity import AccessError
from fanline.engine.access.settings import TokenSettings
from fanline.protocol.auth.claims import Claims
from fanline.protocol.auth.tokens import Header, TokenRules, VerifyingKey, candidates, read_header, verify
from fanline.protocol.errors import ErrorCode


class KeySource(Protocol):
    """Keys that change while the server runs; see key_set.py."""

    keys: Sequence[VerifyingKey]

    async def run(self) -> NoReturn:
        """Keep the keys fresh."""
        ...

    async def refresh(self) -> None:
        """Look for new keys now, unless that was done a moment ago."""
        ...


class TokenVerifier:
    """The verifier of one worker. `keys`: those of the settings; `key_set`: those of an identity provider."""

    def __init__(
        self, tokens: TokenSettings, keys: Sequence[VerifyingKey] = (), key_set: KeySource | None = None
    ) -> None:
        self._rules = TokenRules(tokens.audience or None, tokens.issuer or None, tokens.leeway)
        self._keys = tuple(keys)
        self._key_set = key_set

    async def verify(self, token: str, now: float) -> Claims:
        """The claims of a token that is valid `now` (Unix seconds). TokenError; AccessError while there are no keys."""
        keys = self._keys if self._key_set is None else await self._keys_with(self._key_set, read_header(token))
        return verify(token, keys, self._rules, now)

    async def run(self) -> NoReturn:
        """Keep the keys fresh."""
        if self._key_set is not None:
            await self._key_set.run()
        await trio.sleep_forever()

    async def _keys_with(self, key_set: KeySource, header: Header) -> Sequence[VerifyingKey]:
        """All keys; those of the provider are fetched again if none of them is the one that a token names."""
        if not candidates(known := (*self._keys, *key_set.keys), header):
            await key_set.refresh()
            known = (*self._keys, *key_set.keys)
        if not known:
            raise AccessError("tokens cannot be verified now: their keys cannot be read", ErrorCode.UNAVAILABLE)
        return known
