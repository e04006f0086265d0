"""How routes answer and what they say of themselves.

Belongs here: shared by the route files. Does not: errors (`problems.py`).
"""

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from keeptake.capture.schemas import problems

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_EVERYWHERE = (422, 429, 500, 503)
_HEADERS = {
    "Range": {"description": "One range of bytes; several are answered with the whole.", "example": "bytes=0-65535"},
    "If-Range": {"description": "The ETag that the range is meant for; of any other state the whole is sent."},
    "If-None-Match": {"description": "An ETag: of that very state the answer is 304, without a body."},
}
UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "If-None-Match names the state as it is."}}
"""Further answer of a route with `is_unchanged`."""


def json_answer(content: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:  # noqa: ANN401 -- JSON
    """JSON as UTF-8; numbers print as they were given."""
    return Response(_encode(content), status, media_type="application/json", headers=headers)


def is_unchanged(request: Request, etag: str) -> bool:
    """Whether the caller has this state already: `If-None-Match` names its tag, weakly or not, or any (RFC 9110, 13.1.2)."""
    known = [tag.strip().removeprefix("W/") for tag in ",".join(request.headers.getlist("if-none-match")).split(",")]
    return etag.removeprefix("W/") in known or known == ["*"]


def header_parameters(*names: str) -> dict[str, Any]:
    """Documentation of request headers that a route reads itself."""
    shown = [{"name": name, "in": "header", "required": False, "schema": {"type": "string"}, **_HEADERS[name]} for name in names]
    return {"parameters": shown}


def operation(
    model: Any,  # noqa: ANN401 -- FastAPI's argument
    *statuses: int,
    others: dict[int | str, dict[str, Any]] | None = None,
    **more: Any,  # noqa: ANN401 -- FastAPI's arguments
) -> dict[str, Any]:
    """Documentation of a route: the model of its success, the errors it may answer beside those of all routes, other answers.

    401, 403 and the scope are added from the route's guard (`documentation.py`).
    """
    errors = problems(*sorted({*statuses, *_EVERYWHERE}))
    return {"response_model": None, "responses": {200: {"model": model, **more}, **errors, **(others or {})}}
