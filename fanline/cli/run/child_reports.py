"""What the command itself reports on its task, whichever connection to the socket it comes from."""

from typing import Any

import trio

from fanline.cli.run.requests import (
    AskRequest,
    LogRequest,
    PauseRequest,
    ProgressRequest,
    Request,
    ResultRequest,
    ResumeRequest,
)
from fanline.producer.running_task import AsyncTask


class ChildReports:
    """Carries out requests, on one task alone."""

    def __init__(self, task: AsyncTask) -> None:
        self._task = task
        self._asking = trio.Lock()  # a task asks one question at a time; the others wait their turn
        self.counts_progress = False
        """The command reports its progress: what its output looks like does not matter from now on."""
        self.has_result = False

    def apply(self, request: Request) -> None:
        """Carry out any request but a question. Raises ValueError or TypeError if its values are impossible."""
        task = self._task
        match request:
            case ProgressRequest():
                amount = request.done, request.total
                task.progress(
                    request.percent, request.message, stage=request.stage, done=request.done, total=request.total
                )
                self.counts_progress = self.counts_progress or (request.percent, *amount) != (None, None, None)
            case LogRequest():
                task.log(request.text, stream=request.stream)
            case PauseRequest():
                task.pause(request.message)
            case ResumeRequest():
                task.resume()
            case ResultRequest():
                task.result(request.value)
                self.has_result = True

    async def ask(self, request: AskRequest) -> dict[str, Any]:
        """Wait for the answer. Raises AskExpired, ValueError, TypeError."""
        async with self._asking:
            answer = await self._task.ask(
                request.text, kind=request.kind, options=request.options, deadline=request.deadline
            )
        return answer._asdict()
