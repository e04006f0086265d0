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


def json_answer(content: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:  # noqa: ANN401 -- JSON
    """JSON as UTF-8; numbers print as they were given."""
    return Response(_encode(content), status, media_type="application/json", headers=headers)


def is_unchanged(request: Request, etag: str) -> bool:
    """Whether the caller has this state already: `If-None-Match` names its tag, weakly or not, or any (RFC 9110, 13.1.2)."""
    known = [tag.strip().removeprefix("W/") for tag in ",".join(request.headers.getlist("if-none-match")).split(",")]
    return etag in known or known == ["*"]


def operation(model: Any, *statuses: int, **more: Any) -> dict[str, Any]:  # noqa: ANN401 -- FastAPI's arguments
    """Documentation of a route: the model of its success and the errors it may answer beside those of all routes.

    401, 403 and the scope are added from the route's guard (`documentation.py`).
    """
    errors = problems(*sorted({*statuses, *_EVERYWHERE}))
    return {"response_model": None, "responses": {200: {"model": model, **more}, **errors}}
