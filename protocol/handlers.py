"""Handlers: the application's own code, as the settings name it, with its questions and answers.

A handler is written in one of three forms:

    module:function      a Python callable, run in the process `handlers`
    https://... (http)   a webhook, asked by the process `handlers`
    nats:SUBJECT         a responder of the application's own on NATS, asked by the worker itself

All three get the same request, as JSON; a Python callable gets it as an object. docs/reference/handlers.md lists the
fields of requests and answers.
"""

import re
from collections.abc import Mapping
from enum import Enum, auto
from hashlib import blake2s
from typing import Annotated, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from fanline.protocol.auth.claims import MAX_ROLES, Name
from fanline.protocol.auth.rights import MAX_GRANTS
from fanline.protocol.nats.names import system_subject
from fanline.protocol.text import NAME_PATTERN, explain, without_secrets

MAX_ANSWER_BYTES = 256 * 1024
"""Of an answer: enough for the largest identity."""
SUBJECTS = system_subject("handlers", "*")
"""Where workers ask the processes `handlers`."""
QUEUE = "fanline-handlers"
"""Of several processes one answers."""

_FUNCTION = re.compile(r"(?P<module>[^\W\d]\w*(?:\.[^\W\d]\w*)*):(?P<function>[^\W\d]\w*(?:\.[^\W\d]\w*)*)")
_SUBJECT = re.compile(r"[^\s.*>]+(?:\.[^\s.*>]+)*")
_RESERVED = ("fanline.", "$", "_INBOX.")


class HandlerNameError(ValueError):
    """A text that names no handler; str() is a sentence for the person who wrote it."""


class HandlerError(Exception):
    """A handler did not answer, or not in the way that it must; str() is a sentence for the log."""


class HandlerForm(Enum):
    FUNCTION = auto()
    WEBHOOK = auto()
    SUBJECT = auto()


class Handler(NamedTuple):
    """A handler of the settings."""

    text: str
    form: HandlerForm

    @property
    def subject(self) -> str:
        """Where a worker asks. It is a digest of the whole text, so that among servers with different settings only
        those answer that have this handler, and it reveals nothing of a URL that may contain a secret.
        """
        if self.form is HandlerForm.SUBJECT:
            return self.text.removeprefix("nats:")
        return SUBJECTS.replace("*", blake2s(self.text.encode(), digest_size=12).hexdigest())

    @property
    def label(self) -> str:
        """Its name for logs: a URL without what may be secret."""
        return without_secrets(self.text) if self.form is HandlerForm.WEBHOOK else self.text

    @property
    def module_and_function(self) -> tuple[str, str]:
        """Of a Python callable."""
        module, _, function = self.text.partition(":")
        return module, function


def parse_handler(text: str) -> Handler:
    """Raises HandlerNameError."""
    if text.startswith(("http://", "https://")):
        _check_url(text)
        return Handler(text, HandlerForm.WEBHOOK)
    if text.startswith("nats:"):
        _check_subject(text.removeprefix("nats:"))
        return Handler(text, HandlerForm.SUBJECT)
    if _FUNCTION.fullmatch(text) is None:
        raise HandlerNameError(f"{text!r} names no handler: write module:function, https://HOST/PATH or nats:SUBJECT")
    return Handler(text, HandlerForm.FUNCTION)


def _check_url(text: str) -> None:
    try:
        parts = urlsplit(text)
        good = bool(parts.hostname) and parts.port != 0 and text.isascii() and not re.search(r"\s", text)
    except ValueError:  # the port is not a number
        good = False
    if not good:
        raise HandlerNameError("the URL of a webhook cannot be read: write https://HOST/PATH")


def _check_subject(subject: str) -> None:
    if _SUBJECT.fullmatch(subject) is None:
        raise HandlerNameError(f"{subject!r} is no NATS subject to ask: write nats:app.authorize, without wildcards")
    if subject.startswith(_RESERVED):
        raise HandlerNameError(f"the subject {subject} is not the application's: choose one of your own")


# --- requests -----------------------------------------------------------------------------------------------------


class HandlerRequest(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of all that handlers are asked. In JSON, `type` says what."""

    version: int = 1


class AuthenticateRequest(HandlerRequest, frozen=True, kw_only=True, tag="authenticate"):
    """Who is this client? What it says is verified only as far as `claims` say so."""

    token: str | None = None
    """The token that it has shown, if any. It is verified only if `claims` is there."""
    claims: dict[str, Any] | None = None
    """What the token says, if the server has keys and the token is valid."""
    user: str | None = None
    """Who it says that it is, in dialects where clients may say so."""
    username: str | None = None
    """How it says that others see it."""
    headers: Mapping[str, str] = {}
    """Of the handshake, with names in lower case; empty when a live connection is asked about."""
    path: str = ""
    query: Mapping[str, str] = {}
    """Of the URL; of several with one name the last."""
    address: str = ""
    """The client's address."""

    @property
    def cookies(self) -> dict[str, str]:
        """Those of the header; of several with one name the first, as browsers send the most specific one first (RFC
        6265 section 5.4).
        """
        pairs = [pair.partition("=") for pair in self.headers.get("cookie", "").split(";") if "=" in pair]
        return {name.strip(): value.strip().strip('"') for name, _, value in reversed(pairs)}


class AuthorizeRequest(HandlerRequest, frozen=True, kw_only=True, tag="authorize"):
    """May this client do that on this channel?"""

    user: str | None = None
    """None for a client without a user name."""
    username: str | None = None
    roles: tuple[str, ...] = ()
    token_id: str | None = None
    """The `jti` of its token."""
    right: str
    """`sub`, `pub`, `presence`, `history`, `call`, `cancel` or `answer`."""
    channel: str
    granted: bool
    """Whether the client's token, its roles or the settings grant it."""


# --- answers ------------------------------------------------------------------------------------------------------

_Reason = Annotated[str, Meta(max_length=500, pattern=NAME_PATTERN)]


class ClientIdentity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Who a client is, and what it may do."""

    user: Name | None = None
    """None for a client without a user name, which then has the rights of `channels` and `roles` alone."""
    username: Name | None = None
    """How others see the user."""
    organization_id: Name | None = None
    """To whom the user belongs: the management API shows it."""
    roles: Annotated[tuple[Name, ...], Meta(max_length=MAX_ROLES)] = ()
    """Roles, whose rights are in the settings."""
    channels: Annotated[Mapping[str, tuple[str, ...]], Meta(max_length=MAX_GRANTS)] = {}
    """Pattern -> names of rights, as in {"project:*": ["sub", "history"]}."""
    connections: Annotated[int, Meta(ge=1)] | None = None
    """The most connections that the user may have at a time; None: as the settings say."""
    expires: Annotated[float, Meta(ge=0, le=1e12)] | None = None
    """When the client has to authenticate itself again, Unix seconds; a token that ends earlier counts."""


class HandlerAnswer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of all answers."""

    allow: bool
    reason: _Reason = ""
    """Of a refusal: a sentence for the client."""


class AuthenticateAnswer(HandlerAnswer, frozen=True, kw_only=True):
    """Whether the client gets in, and as whom."""

    identity: ClientIdentity | None = None
    """Required if it gets in."""

    def __post_init__(self) -> None:
        if self.allow and self.identity is None:
            raise ValueError("a client that gets in needs an `identity`")


class AuthorizeAnswer(HandlerAnswer, frozen=True, kw_only=True):
    """Whether the client may do it."""

    ttl: Annotated[float, Meta(ge=0, le=86_400)] | None = None
    """Seconds for which a worker may cache the answer; None: as the settings say."""


class HandlerFailure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """In place of an answer: there is none, and the client is refused for now."""

    error: str


Answered = TypeVar("Answered", bound=msgspec.Struct)
Asked = TypeVar("Asked")

_requests: msgspec.json.Decoder[AuthenticateRequest | AuthorizeRequest] = msgspec.json.Decoder(
    AuthenticateRequest | AuthorizeRequest
)
_failures = msgspec.json.Decoder(HandlerFailure)


def encode_request(request: HandlerRequest) -> bytes:
    return msgspec.json.encode(request)


def decode_request(payload: bytes) -> AuthenticateRequest | AuthorizeRequest:
    """Raises HandlerError for a request that this version does not know."""
    return decode_asked(_requests, payload)


def decode_asked(decoder: msgspec.json.Decoder[Asked], payload: bytes) -> Asked:
    """A request. Raises HandlerError for one that this version does not know."""
    try:
        return decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise HandlerError(f"a request cannot be read: {explain(error)}") from None


def encode_answer(answer: HandlerAnswer | HandlerFailure) -> bytes:
    return msgspec.json.encode(answer)


def decode_answer(payload: bytes, kind: type[Answered]) -> Answered:
    """Raises HandlerError for a failure, and for data that is not an answer of this kind: nothing is guessed."""
    try:
        if len(payload) > MAX_ANSWER_BYTES:
            raise HandlerError(f"its answer has more than {MAX_ANSWER_BYTES} bytes")
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise HandlerError(_failure_in(payload) or f"its answer cannot be used: {explain(error)}") from None


def _failure_in(payload: bytes) -> str | None:
    try:
        return _failures.decode(payload).error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
