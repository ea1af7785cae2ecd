"""The token that comes with a handshake: in one of four places, and in one only.

- `Authorization: Bearer TOKEN` (RFC 6750 section 2.1), for programs
- the subprotocol `fanline.token.TOKEN` beside one of ours, for browsers, which cannot set headers; it is never echoed
- a cookie, if the settings name one
- `?token=TOKEN`, for clients that can do nothing else: a URL ends up in logs and histories, though never in ours
"""

from urllib.parse import parse_qsl

from fanline.protocol.errors import HttpError
from fanline.protocol.websocket.handshake import Request

TOKEN_SUBPROTOCOL = "fanline.token."
_BEARER = "bearer "


def token_of(request: Request, cookie: str = "") -> str | None:
    """The token of a request; None if it has none. `cookie`: the name of the cookie that may hold it.

    Raises HttpError 400 for two tokens: it would be unclear which one counts.
    """
    headers = request.headers
    found = [
        *_bearer(headers.get("authorization", "")),
        *_offered(headers.get("sec-websocket-protocol", "")),
        *(_cookies(headers.get("cookie", ""), cookie) if cookie else ()),
        *(value for name, value in query_of(request) if name == "token"),
    ]
    if len(found) > 1:
        raise HttpError(400, "the request has two tokens; send one")
    return found[0] if found else None


def _bearer(header: str) -> list[str]:
    return [header[len(_BEARER) :].strip()] if header[: len(_BEARER)].lower() == _BEARER else []


def _offered(header: str) -> list[str]:
    offers = (offer.strip() for offer in header.split(","))
    return [offer.removeprefix(TOKEN_SUBPROTOCOL) for offer in offers if offer.startswith(TOKEN_SUBPROTOCOL)]


def _cookies(header: str, wanted: str) -> list[str]:
    pairs = (pair.partition("=") for pair in header.split(";"))
    return [value.strip().strip('"') for name, _, value in pairs if name.strip() == wanted]


def query_of(request: Request) -> list[tuple[str, str]]:
    """The fields of a query. HttpError 400 for too many."""
    try:
        return parse_qsl(request.query, keep_blank_values=True, max_num_fields=64)
    except ValueError:
        raise HttpError(400, "the query has too many fields") from None
