"""What went wrong, as RFC 9457 `application/problem+json`.

Conventions: `code` is stable and for programs, `detail` is for people and never repeats a prompt, a secret or the query part of a
URL; `errors` points into the body (RFC 6901). Belongs here: the shape of an error answer and how exceptions become one. Does
not: deciding that something is wrong.
"""

import json
import logging
import traceback
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import psycopg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from keeptake.errors import LedgerUnavailableError, UnavailableError
from keeptake.json_values import pointer_to

MEDIA_TYPE = "application/problem+json"
RETRY_UNAVAILABLE_S = 2

log = logging.getLogger("keeptake.capture")


class FieldError(BaseModel):
    """One field that was refused."""

    pointer: str = Field(description="JSON pointer into the body, or the parameter.", examples=["/audioUrl"])
    detail: str = Field(examples=["Missing audio URL"])


class ProblemDocument(BaseModel):
    """RFC 9457 problem details."""

    type: str = Field(description="Names the kind of problem.", examples=["urn:keeptake:problem:missing-audioUrl"])
    title: str = Field(examples=["Unprocessable Content"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["Missing audio URL"])
    instance: str = Field(description="Path of the request.", examples=["/api/training-metadata"])
    code: str = Field(description="Stable, for programs.", examples=["missing-audioUrl"])
    requestId: str = Field(description="Also in the header X-Request-Id and in the service's log.")  # noqa: N815 -- the contract's name
    errors: list[FieldError] = Field(default_factory=list)


class Problem(Exception):  # noqa: N818 -- the RFC's own word
    """An answer that is not a success.

    Parameters
    ----------
    status : int
        HTTP status.
    code : str
        Stable name of the case.
    detail : str
        For a person: what was found and what to do.
    pointer : str, optional
        JSON pointer of the offending field.
    headers : dict, optional
        Further headers, such as Retry-After.
    """

    def __init__(
        self, status: int, code: str, detail: str, *, pointer: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = [] if pointer is None else [{"pointer": pointer, "detail": detail}]
        self.headers = headers or {}


def problem_document(
    status: int, code: str, detail: str, *, instance: str, request_id: str, errors: list[dict[str, str]] | None = None
) -> dict[str, Any]:
    """Fill in a problem document."""
    return {
        "type": f"urn:keeptake:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": instance,
        "code": code,
        "requestId": request_id,
        "errors": errors or [],
    }


def answer(request: Request, problem: Problem) -> Response:
    """Turn a problem into its response."""
    document = problem_document(
        problem.status,
        problem.code,
        problem.detail,
        instance=request.url.path,
        request_id=request.scope.get("state", {}).get("request_id", ""),
        errors=problem.errors,
    )
    body = json.dumps(document, ensure_ascii=True)  # ASCII: a path may hold what UTF-8 cannot
    return Response(body, problem.status, media_type=MEDIA_TYPE, headers=problem.headers)


def install(app: FastAPI, methods_of: Callable[[str], list[str]]) -> None:
    """Answer what routes raise on purpose with a problem document; the rest is the envelope's.

    Parameters
    ----------
    methods_of : callable
        Methods that a path has.
    """

    @app.exception_handler(Problem)
    async def _on_problem(request: Request, problem: Problem) -> Response:
        return answer(request, problem)

    @app.exception_handler(HTTPException)
    async def _on_http(request: Request, error: HTTPException) -> Response:
        code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
        headers, detail = dict(error.headers or {}), str(error.detail)
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            # Starlette names those of the first route that matched.
            allowed = headers["Allow"] = ", ".join(methods_of(request.url.path))
            detail = f"the path has {allowed}: /docs shows what each of them does"
        elif error.status_code == HTTPStatus.NOT_FOUND:
            detail = "there is no such path, also with or without a slash at its end: /docs shows those that there are"
        return answer(request, Problem(error.status_code, code, detail, headers=headers))

    @app.exception_handler(RequestValidationError)
    async def _on_invalid(request: Request, error: RequestValidationError) -> Response:
        found = [(tuple(str(step) for step in refused["loc"]), refused["msg"]) for refused in error.errors()]
        problem = Problem(422, "invalid-parameter", "; ".join(f"the parameter {place[-1]}: {said}" for place, said in found))
        problem.errors = [{"pointer": pointer_to(place), "detail": said} for place, said in found]
        return answer(request, problem)

    @app.exception_handler(UnavailableError)
    async def _on_unavailable(request: Request, error: UnavailableError) -> Response:
        log.warning("unavailable %s", type(error).__name__)
        return answer(request, _unavailable(error))


def _unavailable(error: UnavailableError) -> Problem:
    """Name what is away by the kind of the error alone: its text names hosts, and may quote a row."""
    if isinstance(error, LedgerUnavailableError):
        detail = "the ledger does not answer just now: repeat the call"
    elif isinstance(error.__cause__, psycopg.Error):
        detail = "the ledger gave a statement up: repeat the call"
    else:
        detail = "the audio store, or the process that decodes audio, is away just now: repeat the call"
    return Problem(503, "unavailable", detail, headers={"Retry-After": str(RETRY_UNAVAILABLE_S)})


def log_fault(error: BaseException) -> None:
    """Log where something broke without its message: a database error quotes the row, and with it a prompt."""
    frames = traceback.extract_tb(error.__traceback__)
    log.error("fault %s at %s", type(error).__name__, " < ".join(f"{frame.name}:{frame.lineno}" for frame in frames[::-1][:12]))
