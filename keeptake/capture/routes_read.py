"""Routes that show records and statistics, and stream exports.

Belongs here: parameters in, answers out. Does not: SQL (`ledger/`), the shape of a record (`records.public_record`).
"""

import asyncio
import base64
import binascii
import hashlib
import json
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from keeptake.capture.access import Guard, Principal
from keeptake.capture.answers import UNCHANGED, header_parameters, is_unchanged, json_answer, operation
from keeptake.capture.exporting import Exporter
from keeptake.capture.parquet import ParquetReader
from keeptake.capture.problems import Problem
from keeptake.capture.routes_write import GenerationId
from keeptake.capture.schemas import GenerationRecord, Page, StatisticsAnswer
from keeptake.errors import GenerationStatus
from keeptake.ledger.exports import MORE_CSV_COLUMNS, CopyReader, arrow_query, csv_queries, jsonl_queries
from keeptake.ledger.listing import RECORD, page_query
from keeptake.records import public_record

MAX_PAGE = 200
MAX_CURSOR = 200
_COLUMN = f"({'|'.join(MORE_CSV_COLUMNS)})?"
_COLUMNS = f"^{_COLUMN}(,{_COLUMN})*$"

Reader = Annotated[Principal, Depends(Guard("metadata:read", "read"))]
Exporting = Annotated[Principal, Depends(Guard("export:read", "export"))]
Counting = Annotated[Principal, Depends(Guard("stats:read", "read"))]
Name = Annotated[str | None, Query(min_length=1, max_length=512, pattern=r"^[^\u0000]*$")]
LeastQuality = Annotated[
    float | None,
    Query(ge=0, le=1, allow_inf_nan=False, description="Leaves out lower scores, and takes without one.", examples=[0.7]),
]

router = APIRouter()


@router.get(
    "/statistics/overview",
    tags=["statistics"],
    **operation(StatisticsAnswer, others=UNCHANGED),
    openapi_extra=header_parameters("If-None-Match"),
)
async def statistics_overview(request: Request, principal: Counting) -> Response:
    """Counts over everything, at most a minute old."""
    found = await request.app.state.statistics.overview()
    headers = {"ETag": found.etag, "Cache-Control": f"private, max-age={found.fresh_s()}"}
    if is_unchanged(request, found.etag):
        return Response(status_code=304, headers=headers)
    return Response(found.body, media_type="application/json", headers=headers)


@router.get("/export/jsonl", tags=["export"], **operation(None, content={"application/x-ndjson": {"schema": {"type": "string"}}}))
async def export_jsonl(
    request: Request,
    principal: Exporting,
    provider: Name = None,
    minQualityScore: LeastQuality = None,
    qualityScale: Literal["unit", "rating"] = "unit",
) -> Response:
    """A line of JSON a generation, in order of arrival; one snapshot."""
    queries = jsonl_queries(provider=provider, least_quality=minQualityScore, scale=qualityScale)
    return await _copied(request, principal, queries, kind="jsonl", media_type="application/x-ndjson")


@router.get("/export/csv", tags=["export"], **operation(None, content={"text/csv": {"schema": {"type": "string"}}}))
async def export_csv(
    request: Request,
    principal: Exporting,
    provider: Name = None,
    minQualityScore: LeastQuality = None,
    excelSafe: Annotated[bool, Query(description="Cells that a spreadsheet would run get a leading apostrophe.")] = True,
    columns: Annotated[
        str,
        Query(
            max_length=400,
            # Told, not enforced: the route's own refusal names the columns that there are.
            json_schema_extra={"pattern": _COLUMNS},
            description=f"Further columns, comma-separated: {', '.join(MORE_CSV_COLUMNS)}.",
            examples=["provider"],
        ),
    ] = "",
) -> Response:
    """Nine columns, and then those asked for; one snapshot."""
    more = [name for name in columns.split(",") if name]
    if unknown := sorted(set(more) - set(MORE_CSV_COLUMNS)):
        raise Problem(
            422,
            "unknown-column",
            f"{len(unknown)} of the columns are not among {', '.join(MORE_CSV_COLUMNS)}",
            pointer="/query/columns",
        )
    queries = csv_queries(
        provider=provider, least_quality=minQualityScore, more_columns=dict.fromkeys(more), is_excel_safe=excelSafe
    )
    return await _copied(request, principal, queries, kind="csv", media_type="text/csv; charset=utf-8")


@router.get(
    "/export/parquet",
    tags=["export"],
    **operation(None, content={"application/vnd.apache.parquet": {"schema": {"type": "string", "format": "binary"}}}),
)
async def export_parquet(
    request: Request,
    principal: Exporting,
    provider: Name = None,
    minQualityScore: LeastQuality = None,
) -> Response:
    """The rows of the JSONL export, flat and typed, as Parquet; one snapshot."""
    state = request.app.state
    query = arrow_query(provider=provider, least_quality=minQualityScore)
    begin = partial(
        ParquetReader,
        state.database_url,
        query,
        arguments=state.pool.arguments,
        owner=principal.name,
        deadline_s=state.settings.api_deadline_s,
    )
    exporter: Exporter = state.exporter
    return await exporter.answer(request, begin, kind="parquet", media_type="application/vnd.apache.parquet")


@router.get("", tags=["records"], **operation(Page))
async def list_generations(
    request: Request,
    principal: Reader,
    cursor: Annotated[str | None, Query(max_length=MAX_CURSOR, description="`nextCursor` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
    provider: Name = None,
    status: GenerationStatus | None = None,
    userId: Name = None,
) -> Response:
    """Records, newest first, page by page."""
    given = {"provider": provider, "status": status and status.value, "userId": userId}
    filters = {name: value for name, value in given.items() if value is not None}
    after = () if cursor is None else _read_cursor(cursor)
    query = page_query(tuple(filters), is_continued=bool(after))
    rows = await request.app.state.pool.mappings(query, (*filters.values(), *after, limit + 1))
    last = rows[limit - 1] if len(rows) > limit else None
    items = [public_record(row) for row in rows[:limit]]
    return json_answer({"items": items, "nextCursor": _cursor(last["created_at"], last["id"]) if last else None})


@router.get(
    "/{generation_id}",
    tags=["records"],
    **operation(GenerationRecord, 404, others=UNCHANGED),
    openapi_extra=header_parameters("If-None-Match"),
)
async def show_generation(generation_id: GenerationId, request: Request, principal: Reader) -> Response:
    """Everything that is known of a generation."""
    rows = await request.app.state.pool.mappings(RECORD, (generation_id,))
    if not rows:
        raise Problem(404, "generation-unknown", f"no generation {generation_id} is known")
    shown = await asyncio.to_thread(public_record, rows[0]) if rows[0]["embedding"] else public_record(rows[0])
    body = json.dumps(shown, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    if is_unchanged(request, etag):
        return Response(status_code=304, headers={"ETag": etag})
    return Response(body, media_type="application/json", headers={"ETag": etag})


async def _copied(request: Request, principal: Principal, queries: tuple[bytes, ...], *, kind: str, media_type: str) -> Response:
    state = request.app.state
    deadline_s = state.settings.api_deadline_s
    begin = partial(CopyReader, state.pool.arguments, queries, owner=principal.name, deadline_s=deadline_s)
    exporter: Exporter = state.exporter
    return await exporter.answer(request, begin, kind=kind, media_type=media_type)


def _cursor(created_at: datetime, generation: int) -> str:
    return base64.urlsafe_b64encode(f"{created_at.isoformat()} {generation}".encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> tuple[Any, ...]:
    try:
        created_at, generation = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().split(" ")
        place = datetime.fromisoformat(created_at), int(generation)
        if place[0].tzinfo is None or not 0 <= place[1] < 2**63:
            raise ValueError("not of our making")
    except (ValueError, binascii.Error):
        raise Problem(
            422, "invalid-cursor", "give the nextCursor of the page before, unchanged", pointer="/query/cursor"
        ) from None
    return place
