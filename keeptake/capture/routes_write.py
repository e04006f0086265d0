"""Routes that take generations and feedback in.

Belongs here: from a request to the ledger and back, thinly. Does not: what a record may hold (`records.py`), what a save means
(`saving.py`), SQL.
"""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from starlette.responses import Response

from keeptake.capture import metrics
from keeptake.capture.access import Guard, Principal
from keeptake.capture.answers import json_answer, operation
from keeptake.capture.bodies import NDJSON_TYPES, read_body, refusal
from keeptake.capture.problems import Problem
from keeptake.capture.saving import Saved, save
from keeptake.capture.schemas import (
    BATCH_BODY,
    EXPECTED_BODY,
    FEEDBACK_BODY,
    GENERATION_BODY,
    BatchAnswer,
    ExpectedAnswer,
    FeedbackAnswer,
    SavedAnswer,
    body,
)
from keeptake.json_values import UnsoundJsonError, check_json, kind_of, parse_json, pointer_to
from keeptake.ledger.expected import ANNOUNCE
from keeptake.ledger.saves import GIVE_FEEDBACK, json_text
from keeptake.records import (
    FEEDBACK,
    MAX_LENGTH,
    RESERVED_IDS,
    Accepted,
    Refused,
    is_generation_id,
    read_feedback,
    read_record,
)

MAX_LINES = 1000
MAX_BATCH_BYTES = 32 << 20
MAX_EXPECTED = 10_000
MAX_EXPECTED_BYTES = 4 << 20
_ANNOUNCED = "provider and generationIds"

GenerationId = Annotated[str, Path(pattern=r"^[A-Za-z0-9._:-]{1,128}$", examples=["gen_xyz"])]
Writer = Annotated[Principal, Depends(Guard("metadata:write", "write"))]
Judge = Annotated[Principal, Depends(Guard("feedback:write", "write"))]

router = APIRouter(tags=["capture"])


@router.post("", **operation(SavedAnswer, 400, 408, 409, 413, 415), openapi_extra=body(GENERATION_BODY))
async def save_generation(request: Request, principal: Writer) -> Response:
    """Save a generation: durable when answered, and safe to repeat."""
    started_s = time.perf_counter()
    record = read_record(await read_body(request))
    if isinstance(record, Refused):
        metrics.saves.labels("unknown", "refused").inc()
        raise refusal(record)
    state = request.app.state
    (saved,) = await save(state.pool, [record], principal.name, state.step)
    _count(record, saved)
    metrics.save_seconds.observe(time.perf_counter() - started_s)
    if saved.metadata_id is None:
        raise _conflict(saved)
    return json_answer({"success": True, **_shown(saved), "status": saved.status})


@router.post(
    "/batch",
    **operation(BatchAnswer, 400, 408, 413, 415),
    openapi_extra=body(BATCH_BODY, NDJSON_TYPES[0]),
)
async def save_batch(request: Request, principal: Writer) -> Response:
    """Save up to 1,000 generations, a line each, in one transaction; a refused line refuses no other."""
    lines = (await read_body(request, NDJSON_TYPES, most=MAX_BATCH_BYTES)).split(b"\n")
    read = [(number, read_record(line)) for number, line in enumerate(lines, 1) if line.strip()]
    if not read:
        raise Problem(400, "empty-batch", "a batch has a record a line, and this one has none")
    if len(read) > MAX_LINES:
        raise Problem(413, "too-many-lines", f"a batch has at most {MAX_LINES} lines, found {len(read)}")
    records = [record for _, record in read if isinstance(record, Accepted)]
    saved = iter(await save(request.app.state.pool, records, principal.name, request.app.state.step)) if records else iter(())
    results = []
    for number, record in read:
        if isinstance(record, Refused):
            metrics.saves.labels("unknown", "refused").inc()
            results.append(_refused_line(number, record))
        else:
            item = next(saved)
            _count(record, item)
            results.append(_saved_line(number, item))
    statuses = [result["status"] for result in results]
    replayed = sum(result.get("replayed", False) for result in results)
    refused = len(results) - statuses.count(200)
    totals = {"saved": statuses.count(200) - replayed, "replayed": replayed, "refused": refused}
    return json_answer({"success": not refused, **totals, "results": results})


@router.post("/expected", **operation(ExpectedAnswer, 400, 408, 413, 415), openapi_extra=body(EXPECTED_BODY))
async def announce(request: Request, principal: Writer) -> Response:
    """Announce what a provider made: what is never saved shows as missing metadata."""
    provider, names = _announcement(await read_body(request, most=MAX_EXPECTED_BYTES))
    rows = await request.app.state.pool.rows(ANNOUNCE, (provider, names, names))
    return json_answer({"success": True, "announced": rows[0][0], "missing": rows[0][1]})


async def give_feedback(generation_id: GenerationId, request: Request, principal: Judge) -> Response:
    """Merge a user's feedback: given fields count, null clears one, absent ones stay."""
    changes = read_feedback(await read_body(request))
    if isinstance(changes, Refused):
        raise refusal(changes)
    if not changes:
        raise Problem(422, "missing-feedback", f"give any of {', '.join(FEEDBACK)}", pointer="")
    state = request.app.state
    rows = await state.pool.mappings(GIVE_FEEDBACK, (json_text(changes), generation_id, principal.name))
    if not rows:
        raise Problem(404, "generation-unknown", f"no generation {generation_id} is known")
    row = rows[0]
    for kind in changes:
        metrics.feedback.labels(kind).inc()
    score = await state.scorer.score(row) if row["is_heard"] else None
    shown = {name: row[name] for name in FEEDBACK if row[name] is not None}
    return json_answer({"success": True, "generationId": generation_id, "userFeedback": shown, "qualityScore": score})


for _method in ("PUT", "PATCH"):
    router.add_api_route(
        "/{generation_id}/feedback",
        give_feedback,
        methods=[_method],
        operation_id=f"give_feedback_{_method.lower()}",
        openapi_extra=body(FEEDBACK_BODY),
        **operation(FeedbackAnswer, 400, 404, 408, 413, 415),
    )


def _announcement(raw: bytes) -> tuple[str, list[str]]:
    try:
        value = parse_json(raw)
        check_json(value, ())
    except UnsoundJsonError as error:
        status = 400 if error.kind == "not-json" else 422
        raise Problem(status, error.kind, error.detail, pointer=pointer_to(error.path)) from None
    if type(value) is not dict:
        raise Problem(422, "invalid-announcement", f"expected an object with {_ANNOUNCED}, found {kind_of(value)}", pointer="")
    for name in value.keys() - {"provider", "generationIds"}:
        detail = f"expected {_ANNOUNCED} alone, found a field {name[:40]!r}"
        raise Problem(422, "invalid-announcement", detail, pointer=pointer_to((name,)))
    for name in ("provider", "generationIds"):
        if value.get(name) is None:
            raise Problem(422, f"missing-{name}", f"the field {name} is required", pointer=f"/{name}")
    provider, names = value["provider"], value["generationIds"]
    if type(provider) is not str or not provider.strip() or len(provider) > MAX_LENGTH["provider"]:
        raise Problem(422, "invalid-provider", "expected a name of 1 to 512 characters", pointer="/provider")
    if type(names) is not list:
        raise Problem(422, "invalid-generationIds", f"expected an array of ids, found {kind_of(names)}", pointer="/generationIds")
    if len(names) > MAX_EXPECTED:
        detail = f"expected at most {MAX_EXPECTED} ids, found {len(names)}: announce them in several calls"
        raise Problem(422, "invalid-generationIds", detail, pointer="/generationIds")
    for index, name in enumerate(names):
        if why := _no_id(name):
            raise Problem(422, "invalid-generationIds", why, pointer=f"/generationIds/{index}")
    return provider, names


def _no_id(name: Any) -> str | None:  # noqa: ANN401 -- JSON
    """Why no record could ever have this id; None where one could."""
    if type(name) is not str:
        return f"expected text, found {kind_of(name)}"
    if not is_generation_id(name):
        return "expected 1 to 128 of A-Z a-z 0-9 . _ : -"
    return f"{name!r} is taken by the service's own paths" if name in RESERVED_IDS else None


def _shown(saved: Saved) -> dict[str, Any]:
    return {"metadataId": str(saved.metadata_id), "generationId": saved.generation_id, "replayed": saved.is_replayed}


def _conflict(saved: Saved) -> Problem:
    return Problem(
        409,
        "generation-conflict",
        f"{saved.generation_id} is known with other capture fields: what was captured is never overwritten",
        pointer="/generationId",
    )


def _saved_line(line: int, saved: Saved) -> dict[str, Any]:
    if saved.metadata_id is not None:
        return {"line": line, "status": 200, **_shown(saved)}
    problem = _conflict(saved)
    return _problem_line(line, 409, saved.generation_id, problem.code, problem.detail, "/generationId")


def _refused_line(line: int, refused: Refused) -> dict[str, Any]:
    status = refusal(refused).status
    return _problem_line(line, status, refused.generation_id, refused.reason, refused.detail, refused.pointer)


def _problem_line(line: int, status: int, generation_id: str | None, code: str, detail: str, pointer: str) -> dict[str, Any]:
    return {"line": line, "status": status, "generationId": generation_id, "code": code, "detail": detail, "pointer": pointer}


def _count(record: Accepted, saved: Saved) -> None:
    outcome = "conflict" if saved.metadata_id is None else "replayed" if saved.is_replayed else "saved"
    metrics.saves.labels(metrics.provider_label(record.generation.provider), outcome).inc()
