"""A FastAPI app with background tasks, for a real server. Each answer has the IDs of its tasks in the header `tasks`.

All requests pass a middleware, which wraps the response, as in most apps. `gate` waits for a file in $QUEUE_DIRECTORY.
"""

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import anyio
from fastapi import BackgroundTasks, FastAPI, HTTPException, Request, Response
from fastapi.responses import StreamingResponse

import fanline
from fanline.fastapi import background

app = FastAPI()
DIRECTORY = Path(os.environ.get("QUEUE_DIRECTORY", "."))


@app.middleware("http")
async def wrap(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    response.headers["wrapped"] = "yes"
    return response


def plain(count: int) -> int:
    task = fanline.current_task()
    assert isinstance(task, fanline.SyncTask)
    for _ in task.track(range(count)):
        pass
    return count


async def coroutine(count: int) -> int:
    task = fanline.current_task()
    assert isinstance(task, fanline.AsyncTask)
    await task.progress(done=count, total=count)
    return count


def bad() -> None:
    raise ValueError("bad input")


async def gate(name: str) -> str:
    while not (DIRECTORY / name).exists():
        await anyio.sleep(0.01)
    return name


def endless() -> None:
    task = fanline.current_task()
    assert isinstance(task, fanline.SyncTask)
    while True:
        task.log("step")
        time.sleep(0.01)


def ids(*tasks: str) -> dict[str, str]:
    return {"tasks": " ".join(tasks)}


@app.post("/several")
async def several(tasks: BackgroundTasks, response: Response) -> None:
    """As plain functions and coroutines, which run one after the other."""
    made = [background(tasks, plain, 1), background(tasks, coroutine, 2), background(tasks, plain, 3)]
    response.headers.update(ids(*made))


@app.post("/plain-route")
def plain_route(tasks: BackgroundTasks, response: Response) -> None:
    """The route itself runs in a thread."""
    response.headers.update(ids(background(tasks, plain, 1)))


@app.post("/bad")
async def one_fails(tasks: BackgroundTasks, response: Response) -> None:
    response.headers.update(ids(background(tasks, bad), background(tasks, plain, 1)))


@app.post("/refused")
async def refused(tasks: BackgroundTasks) -> None:
    raise HTTPException(409, headers=ids(background(tasks, plain, 1)))


@app.post("/gate/{name}")
async def wait_at_gate(name: str, tasks: BackgroundTasks, response: Response) -> None:
    response.headers.update(ids(background(tasks, gate, name)))


@app.post("/endless")
async def run_endlessly(tasks: BackgroundTasks, response: Response) -> None:
    response.headers.update(ids(background(tasks, endless)))


@app.post("/stream")
async def stream(tasks: BackgroundTasks) -> StreamingResponse:
    """The response is never over, if the client does not leave."""

    async def parts() -> AsyncIterator[bytes]:
        while True:
            yield b"part\n"
            await anyio.sleep(0.01)

    return StreamingResponse(parts(), headers=ids(background(tasks, plain, 1)))
