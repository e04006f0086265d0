"""What goes round every request: its id, its metrics, the headers of every answer, a log line where it went wrong or slowly.

A plain ASGI layer: Starlette's `BaseHTTPMiddleware` costs more than a save. Logged are method, route, status, time and id: never
a query, a body or a key. Belongs here: what holds for all routes alike. Does not: access, which differs by route.
"""

import asyncio
import contextlib
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
_ID = re.compile(r"[!#-&(-~]{1,128}")  # visible ASCII without quotes
LINGER_S = 30.0  # a body of 50 MB at 16 Mbit/s
LINGER_PAUSE_S = 2.0
LINGER_BYTES = 128 << 20

log = logging.getLogger("keeptake.capture.requests")


class BrokenOffError(KeeptakeError):
    """An answer ended before its end; why stands in the line before."""


class _HeadAnsweredError(Exception):
    """A HEAD has its answer, and the body need not be made."""


class Envelope:
    """ASGI layer round the whole application.

    Parameters
    ----------
    app : ASGIApp
        The application.
    without_head : str
        Paths that begin like this have no HEAD: their GET is dear before its first byte. All others answer it as a GET
        without the body.
    """

    def __init__(self, app: ASGIApp, *, without_head: str) -> None:
        self._app = app
        self._without_head = without_head

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and put its answer into the envelope."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_head = scope["method"] == "HEAD" and not scope["path"].startswith(self._without_head)
        if is_head:
            scope = {**scope, "method": "GET"}
        request_id = _request_id(scope)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        started_s = time.perf_counter()
        body = _Body(scope, receive)
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
            elif is_head:
                await send({"type": "http.response.body"})
                raise _HeadAnsweredError
            elif status >= 400 and not message.get("more_body") and not body.is_whole:
                await send({**message, "more_body": True})
                await body.linger()
                await send({"type": "http.response.body"})
            else:
                await send(message)

        try:
            await self._app(scope, body.receive, send_enveloped)
        except _HeadAnsweredError:
            pass
        except Exception as fault:  # the last place that can keep a row's text out of the log
            log_fault(fault)
            if has_started:
                raise BrokenOffError from None  # uvicorn closes the connection, and the client sees that something is missing
            await answer(Request(scope), Problem(500, "internal-error", "the service failed; its log has the request's id"))(
                scope, body.receive, send_enveloped
            )
        finally:
            route = getattr(scope.get("endpoint"), "__name__", "unknown")
            method = "HEAD" if is_head else _method(scope["method"])
            metrics.requests.labels(method, route, str(status)).inc()
            elapsed_ms = (time.perf_counter() - started_s) * 1000
            level = logging.INFO if status >= 400 or elapsed_ms > SLOW_MS else logging.DEBUG
            log.log(level, "%s %s %d %.1f ms id=%s", method, route, status, elapsed_ms, request_id)


class _Body:
    """A request's body on its way to the application, and what is left of it after the answer."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._receive = receive
        headers = dict(scope["headers"])
        self.is_whole = headers.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in headers

    async def receive(self) -> Message:
        """Next piece of the body."""
        message = await self._receive()
        self.is_whole = self.is_whole or not message.get("more_body")
        return message

    async def linger(self) -> None:
        """Let the client send the rest of a body that was refused, and drop it.

        A connection that is closed while bytes come in is reset, and the reset throws the answer away before a client that
        sends first and reads then gets to it.
        """
        size = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while not self.is_whole and size < LINGER_BYTES:
                    async with asyncio.timeout(LINGER_PAUSE_S):
                        size += len((await self.receive()).get("body", b""))


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given = value.decode("latin-1")
            if _ID.fullmatch(given):
                return str(given)
    return secrets.token_hex(8)


def _method(method: str) -> str:
    return method if method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE") else "other"
