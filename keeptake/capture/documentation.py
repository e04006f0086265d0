"""`/openapi.json`, completed, and `/docs`, which needs no network: Swagger UI out of an installed package.

FastAPI's own page loads from a CDN. Belongs here: describing the API. Does not: shapes (`schemas.py`).
"""

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse, Response

from keeptake.capture.access import Guard
from keeptake.capture.schemas import PROBLEM_SCHEMA, SOUND_JSON, problems

ASSETS = ("swagger-ui-bundle.js", "swagger-ui.css")
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Keeptake API</title>
<link rel="icon" href="data:,"><link rel="stylesheet" href="/docs/swagger-ui.css"></head>
<body><div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script><script src="/docs/start.js"></script></body></html>
"""
_START = 'SwaggerUIBundle({url: "/openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null});\n'
_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"
_DESCRIPTION = """Captures every AI music generation and every reaction to it, and serves statistics and exports.

Send a key as `Authorization: Bearer kt_…` or `X-API-Key`. Errors are RFC 9457 problem documents."""


def install(app: FastAPI, routers: Iterable[tuple[str, APIRouter]]) -> None:
    """Give `app` its documentation; `routers` are the included ones behind their prefixes."""
    folder = _assets()

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(app, routers)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # the way that FastAPI documents

    @app.get("/docs", include_in_schema=False)
    async def _docs() -> Response:
        return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY})

    @app.get("/docs/start.js", include_in_schema=False)
    async def _start() -> Response:
        return Response(_START, media_type="text/javascript")

    @app.get("/docs/{asset}", include_in_schema=False)
    async def _asset(asset: str) -> Response:
        if asset not in ASSETS:
            raise HTTPException(404)
        return FileResponse(folder / asset)


def _assets() -> Path:
    found = find_spec("fastapi_offline")  # only for the Swagger UI that lies in it
    if found is None or found.origin is None:
        raise ModuleNotFoundError("fastapi-offline is missing: install the package's dependencies again")
    return Path(found.origin).parent / "static"


def scope_of(route: APIRoute) -> str | None:
    """Scope that a route asks for; None for an open one."""
    guards = [part.call for part in route.dependant.dependencies if isinstance(part.call, Guard)]
    return guards[0].scope if guards else None


def _completed(app: FastAPI, routers: Iterable[tuple[str, APIRouter]]) -> dict[str, Any]:
    document = get_openapi(title="Keeptake", version=app.version, description=_DESCRIPTION, routes=app.routes)
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas.update(PROBLEM_SCHEMA.get("$defs", {}))
    schemas["ProblemDocument"] = {key: value for key, value in PROBLEM_SCHEMA.items() if key != "$defs"}
    schemas["SoundJson"] = SOUND_JSON
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "kt_ID_SECRET, made by `keeptake keys create`."},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    guarded = [(prefix, route) for prefix, router in routers for route in router.routes if isinstance(route, APIRoute)]
    for prefix, route in guarded:
        scope = scope_of(route)
        if scope:
            for method in route.methods or ():
                operation = document["paths"][prefix + route.path_format][method.lower()]
                operation["security"] = [{"bearer": []}, {"header": []}]
                operation["x-scope"] = scope
                operation["responses"] |= {str(status): shown for status, shown in problems(401, 403).items()}
    return document
