"""The application: all calls, under one prefix, with what is documented of them."""

from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.middleware.cors import CORSMiddleware

from fanline.workers.control import metrics, pages
from fanline.workers.control.api import acting, keys, looking, revoking, sending, tasks
from fanline.workers.control.health import router as health
from fanline.workers.control.parts import ControlParts
from fanline.workers.control.problems import ApiProblem, add_problems

PREFIX = "/api/v1/websocket"
_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ApiProblem, "description": description}
    for status, description in {
        400: "The request cannot be read, or asks for what there is not.",
        401: "No key, or one that is not accepted.",
        403: "The key has not the right, or the page may not ask.",
        404: "There is no such thing.",
        408: "The request did not come to its end in time.",
        409: "Not possible in the state that it is in.",
        413: "The body is too large.",
        422: "A parameter or a field is not what it has to be.",
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
        description="Looks at and manages the whole cluster. Every error has the shape of `ApiProblem`.",
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=_operation_id,
    )
    api = APIRouter(prefix=PREFIX, responses=_RESPONSES)
    for router in (looking.router, tasks.router, sending.router, acting.router, revoking.router, keys.router, health):
        api.include_router(router)
    app.include_router(api)
    app.include_router(metrics.router)
    app.include_router(pages.router)
    add_problems(app)
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]  # as FastAPI documents it
    if parts is not None:
        app.state.parts, app.state.callers, app.state.audit = parts, parts.callers, parts.audit
        _let_pages_in(app, parts.settings.engine.origins)
    return app


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
            "bearer": {"type": "http", "scheme": "bearer", "description": "A key, or the token of an admin."},
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        described["security"] = [{"bearer": []}, {"key": []}]
    return app.openapi_schema or {}
