"""What goes round every request: its id, its metrics, the headers of every answer, a log line where it went wrong or slowly.

A plain ASGI layer: Starlette's `BaseHTTPMiddleware` costs more than a save. Logged are method, route, status, time and id: never
a query, a body or a key. Belongs here: what holds for all routes alike. Does not: access, which differs by route.
"""

import logging
import re
import secrets
import time
from collections.abc import Mapping

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from keeptake.capture import metrics
from keeptake.capture.problems import Problem, answer, log_fault
from keeptake.errors import KeeptakeError

SLOW_MS = 1000.0
_NOSNIFF = (b"x-content-type-options", b"nosniff")
_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

log = logging.getLogger("keeptake.capture.requests")


class BrokenOffError(KeeptakeError):
    """An answer ended before its end; why stands in the line before."""


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
        has_started = False

        async def send_enveloped(message: Message) -> None:
            nonlocal status, has_started
            if message["type"] == "http.response.start":
                status = message["status"]
                has_started = True
                rate: Mapping[str, str] = state.get("rate_headers") or {}
                more = [(name.lower().encode(), value.encode()) for name, value in rate.items()]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode()), _NOSNIFF, *more]
            await send(message)

        try:
            await self._app(scope, receive, send_enveloped)
        except Exception as fault:  # the last place that can keep a row's text out of the log
            log_fault(fault)
            if has_started:
                raise BrokenOffError from None  # uvicorn closes the connection, and the client sees that something is missing
            await answer(Request(scope), Problem(500, "internal-error", "the service failed; its log has the request's id"))(
                scope, receive, send_enveloped
            )
        finally:
            route = getattr(scope.get("endpoint"), "__name__", "unknown")
            metrics.requests.labels(_method(scope["method"]), route, str(status)).inc()
            elapsed_ms = (time.perf_counter() - started_s) * 1000
            level = logging.INFO if status >= 400 or elapsed_ms > SLOW_MS else logging.DEBUG
            log.log(level, "%s %s %d %.1f ms id=%s", _method(scope["method"]), route, status, elapsed_ms, request_id)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given = value.decode("latin-1")
            if _ID.fullmatch(given):
                return str(given)
    return secrets.token_hex(8)


def _method(method: str) -> str:
    return method if method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE") else "other"
