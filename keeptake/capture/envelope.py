"""What goes round every request: its id, one log line, its metrics, the headers that every answer carries.

A plain ASGI layer: Starlette's `BaseHTTPMiddleware` costs more than a save. Logged are method, route, status, time and id: never
a query, a body or a key. Belongs here: what holds for all routes alike. Does not: access, which differs by route.
"""

import logging
import re
import secrets
import time
from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from keeptake.capture import metrics

_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

log = logging.getLogger("keeptake.capture.requests")


class Envelope:
    """ASGI layer round the whole application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and put its answer into the envelope."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        started_s = time.perf_counter()
        status = 500

        async def send_enveloped(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
                rate: Mapping[str, str] = state.get("rate_headers") or {}
                headers.update(rate)
            await send(message)

        try:
            await self._app(scope, receive, send_enveloped)
        finally:
            route = getattr(scope.get("route"), "path", "unknown")
            metrics.requests.labels(_method(scope["method"]), route, str(status)).inc()
            elapsed_ms = (time.perf_counter() - started_s) * 1000
            log.info("%s %s %d %.1f ms id=%s", _method(scope["method"]), route, status, elapsed_ms, request_id)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given = value.decode("latin-1")
            if _ID.fullmatch(given):
                return str(given)
    return secrets.token_hex(8)


def _method(method: str) -> str:
    return method if method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE") else "other"
