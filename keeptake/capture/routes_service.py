"""Routes about the service itself: is it alive, is it ready, what has it counted.

Belongs here: health and metrics. Does not: the interactive documentation (`documentation.py`).
"""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from keeptake.capture import metrics
from keeptake.capture.access import Guard, Principal
from keeptake.capture.answers import json_answer, operation
from keeptake.capture.problems import RETRY_UNAVAILABLE_S
from keeptake.capture.schemas import Liveness, Readiness
from keeptake.errors import KeeptakeError
from keeptake.ledger.expected import COUNT_MISSING

MIGRATED = "SELECT version_num FROM public.alembic_version"

_NOT_READY: dict[int | str, dict[str, Any]] = {503: {"model": Readiness, "description": "A part fails: `failing` names it."}}

router = APIRouter(tags=["service"])


@router.get("/healthz", **operation(Liveness))
async def healthz() -> Response:
    """Answers while the process can answer; looks at nothing else."""
    return json_answer({"status": "ok"})


@router.get("/readyz", **operation(Readiness, others=_NOT_READY))
async def readyz(request: Request) -> Response:
    """Names the part that fails, with 503; otherwise 200."""
    state = request.app.state
    checks = {"ledger": "ok", "migrations": "ok", "audioStore": "ok"}
    try:
        rows = await state.pool.rows(MIGRATED)
        if not rows or rows[0][0] != state.revision:
            checks["migrations"] = "the ledger is at another revision than this service: run keeptake migrate"
    except KeeptakeError:
        checks["ledger"] = "does not answer"
        checks["migrations"] = "unknown"
    except Exception:
        checks["migrations"] = "the ledger was never migrated: run keeptake migrate"
    try:
        await asyncio.wait_for(asyncio.to_thread(state.audio_store.check), 1.5)
    except (KeeptakeError, TimeoutError, OSError):
        checks["audioStore"] = "does not answer"
    failing = sorted(name for name, found in checks.items() if found != "ok")
    answer = {"status": "failing" if failing else "ready", "failing": failing, "checks": checks}
    headers = {"Retry-After": str(RETRY_UNAVAILABLE_S)} if failing else {}
    return json_answer(answer, status=503 if failing else 200, headers=headers)


@router.get("/metrics", **operation(None, content={"text/plain": {"schema": {"type": "string"}}}))
async def show_metrics(request: Request, principal: Annotated[Principal, Depends(Guard("metrics:read", "read"))]) -> Response:
    """Prometheus metrics, over all worker processes."""
    missing = dict(await request.app.state.pool.rows(COUNT_MISSING))
    return Response(metrics.exposition(missing), headers={"Content-Type": metrics.CONTENT_TYPE})
