"""The application: all calls, under one prefix, with what is documented of them."""

from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from fanline.protocol.management.monitor import CALL_PATH
from fanline.workers.control import metrics
from fanline.workers.control.api import (
    acting,
    dead_letters,
    keys,
    looking,
    monitoring,
    notifications,
    revoking,
    sending,
    tasks,
)
from fanline.workers.control.health import router as health
from fanline.workers.control.http import pages
from fanline.workers.control.http.calls import MonitorCalls
from fanline.workers.control.http.problems import ApiProblem, add_problems
from fanline.workers.control.http.requests import HeadAsGet
from fanline.workers.control.parts import ControlParts

PREFIX = "/api/v1/websocket"
_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ApiProblem, "description": description}
    for status, description in {
        400: "The request is malformed, or names something that does not exist.",
        401: "No key, or one that is not accepted.",
        403: "The key lacks the right, or the page may not call.",
        404: "There is no such thing.",
        408: "The request was not complete in time.",
        409: "Not possible in the present state.",
        413: "The body is too large.",
        422: "A parameter or a field is invalid.",
        429: "Too many requests from this address.",
        431: "The head of the request is too large.",
        503: "It cannot be done now; try again later.",
    }.items()
}
_MAX_AGE = 600  # seconds for which a browser remembers what a page may ask


def make_app(parts: ControlParts | None = None) -> FastAPI:
    """`parts`: what the calls need; None: only to be described."""
    app = FastAPI(
        title="Fanline management API",
        version="1",
        description="Shows and manages the whole cluster. Every error has the shape of `ApiProblem`.",
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # the address of a redirect would be made of what the client says
        generate_unique_id_function=_operation_id,
    )
    calls = (looking, monitoring, tasks, sending, acting, revoking, dead_letters, keys)
    for router in (*(each.router for each in calls), health, *notifications.ROUTERS):
        app.include_router(router, prefix=PREFIX, responses=_RESPONSES)  # in one of their own, each is searched twice
    app.router.routes.append(Route(CALL_PATH, MonitorCalls(app), methods=["POST"], include_in_schema=False))
    app.include_router(metrics.router)
    app.include_router(pages.router)
    add_problems(app)
    app.add_middleware(HeadAsGet)
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]  # as FastAPI documents it
    if parts is not None:
        use_parts(app, parts)
        _let_pages_in(app, parts.settings.engine.origins)
    return app


def use_parts(app: FastAPI, parts: ControlParts) -> None:
    """From now on, the calls act on these."""
    app.state.parts, app.state.callers, app.state.audit = parts, parts.callers, parts.audit


def _let_pages_in(app: FastAPI, origins: tuple[str, ...]) -> None:
    """Browsers show the answers to pages of the origins that may connect as well."""
    app.add_middleware(
        CORSMiddleware,
        allow_origins=[origin.lower() for origin in origins],
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "X-API-Key"],
        max_age=_MAX_AGE,
    )


def _operation_id(route: APIRoute) -> str:
    return route.name


def _described(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI, in which every call says how callers show who they are."""
    if app.openapi_schema is None:
        described = FastAPI.openapi(app)
        described["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer", "description": "A key, or an admin's token."},
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        described["security"] = [{"bearer": []}, {"key": []}]
    return app.openapi_schema or {}
