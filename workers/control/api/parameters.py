"""What several calls take."""

from typing import Annotated

from fastapi import Path, Query

from fanline.protocol.channels import check_channel
from fanline.protocol.errors import MessageError
from fanline.protocol.text import NAME_PATTERN
from fanline.workers.control.problems import ApiError

MAX_PAGE = 500
NAME = NAME_PATTERN.replace(r"\Z", "$")
"""The same pattern in the form of JSON Schema."""

Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="The most items of a page.")]
After = Annotated[
    str, Query(max_length=300, pattern=NAME, description="`next` of the page before; empty for the first page.")
]
Prefix = Annotated[str, Query(max_length=300, pattern=NAME, description="Only names that begin with it.")]
ConnectionId = Annotated[str, Path(max_length=64, description="As in `connections`.")]
UserId = Annotated[str, Path(min_length=1, max_length=128, pattern=NAME, description="The name of the user.")]
ChannelName = Annotated[str, Path(max_length=300, description="As in `task:42`.")]
TaskName = Annotated[str, Path(max_length=300, description="The id of the task: `42` of `task:42`.")]


def checked_channel(name: str, where: str = "path.channel") -> str:
    """A name that is a channel's. ApiError 400."""
    try:
        return check_channel(name)
    except MessageError as error:
        raise ApiError(400, "bad_channel", str(error), where=where, advice="Write NAMESPACE:ID.") from None
