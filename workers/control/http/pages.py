"""`/docs`: the management API on one page, made from its OpenAPI. No scripts, and nothing from elsewhere."""

from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

router = APIRouter()
_STYLE = """
body { font: 15px/1.5 sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
code { background: #eee; padding: 0 .2em }
h2 { font: bold 1rem monospace; border-top: 1px solid #ccc; padding-top: 1rem }
"""
_STYLE_HASH = b64encode(sha256(_STYLE.encode()).digest()).decode()
_POLICY = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; frame-ancestors 'none'"


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """For people with a browser."""
    page = "\n".join(_lines(request.app.openapi()))
    return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY})


def _lines(described: dict[str, Any]) -> Iterator[str]:
    info = described["info"]
    yield f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(info['title'])}</title>"
    yield f"<style>{_STYLE}</style><h1>{escape(info['title'])}</h1><p>{escape(info['description'])}</p>"
    yield "<p>Exact schemas: <a href=/api/v1/websocket/openapi.json>openapi.json</a>.</p>"
    for path, calls in described["paths"].items():
        for method, call in calls.items():
            yield f"<h2>{method.upper()} {escape(path)}</h2><p>{escape(call.get('description', ''))}</p>"
            yield from _parameters(call)
    yield "</html>"


def _parameters(call: dict[str, Any]) -> Iterator[str]:
    if parameters := call.get("parameters"):
        yield "<ul>"
        for each in parameters:
            yield f"<li><code>{escape(each['name'])}</code> ({each['in']}) {escape(each.get('description', ''))}</li>"
        yield "</ul>"
    if body := call.get("requestBody"):
        schema = body["content"]["application/json"]["schema"]
        yield f"<p>Body: <code>{escape(schema.get('$ref', 'JSON').rpartition('/')[2])}</code></p>"
