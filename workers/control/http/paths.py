"""Names in paths: `/channels/doc:a%2Fb` is about the channel `doc:a/b`, whose slash divides no path.

Servers hand an application the path decoded, in which that slash is like any other. So it is decoded again, segment by
segment, with what would be ambiguous still escaped; the parameters that are names (api/parameters.py) end that.
"""

from urllib.parse import unquote, unquote_to_bytes

from fanline.workers.control.http.problems import ApiError


def in_segments(raw: bytes) -> str:
    """A path as it is matched, from how it came. ApiError 400 if it is not UTF-8."""
    try:
        return "/".join(as_segment(unquote_to_bytes(part).decode()) for part in raw.split(b"/"))
    except UnicodeDecodeError:
        raise ApiError(400, "bad_request", "the path is not UTF-8") from None


def as_segment(name: str) -> str:
    """A name as a segment of such a path."""
    return name.replace("%", "%25").replace("/", "%2F")


def of_segment(segment: str) -> str:
    """The name in a segment."""
    return unquote(segment)
