"""Parameters of several calls."""

from typing import Annotated

from fastapi import Path, Query
from pydantic import BeforeValidator

from fanline.protocol.channels import check_channel
from fanline.protocol.errors import MessageError
from fanline.protocol.text import NAME_PATTERN
from fanline.workers.control.http.paths import of_segment
from fanline.workers.control.http.problems import ApiError

MAX_PAGE = 500
NAME = NAME_PATTERN.replace(r"\Z", "$")
"""The same pattern in the form of JSON Schema."""

Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="The most items of a page.")]
After = Annotated[
    str, Query(max_length=300, pattern=NAME, description="`next` of the page before; empty for the first page.")
]
Prefix = Annotated[str, Query(max_length=300, pattern=NAME, description="Only names that begin with it.")]
_Segment = BeforeValidator(of_segment)
ConnectionId = Annotated[str, Path(max_length=64, description="As in `connections`."), _Segment]
UserId = Annotated[str, Path(min_length=1, max_length=128, pattern=NAME, description="The name of the user."), _Segment]
ChannelName = Annotated[str, Path(max_length=300, description="As in `task:42`."), _Segment]
TaskName = Annotated[str, Path(max_length=300, description="The id of the task: `42` of `task:42`."), _Segment]


def checked_channel(name: str, where: str = "path.channel") -> str:
    """A valid name of a channel. Raises ApiError 400."""
    try:
        return check_channel(name)
    except MessageError as error:
        raise ApiError(400, "bad_channel", str(error), where=where, advice="Write NAMESPACE:ID.") from None
