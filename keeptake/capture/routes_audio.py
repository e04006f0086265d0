"""Routes about a take's sound: its bytes in, its bytes out, its neighbours.

Belongs here: headers of ranges and digests. Does not: what audio is kept (`custody/`), SQL and search (`ledger/`).
"""

import asyncio
from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.concurrency import iterate_in_threadpool
from starlette.responses import Response, StreamingResponse

from keeptake.audio_store import AudioStore
from keeptake.capture.access import Guard, Principal
from keeptake.capture.answers import UNCHANGED, header_parameters, is_unchanged, json_answer, operation
from keeptake.capture.problems import Problem
from keeptake.capture.ranges import byte_range
from keeptake.capture.routes_read import Name, Reader
from keeptake.capture.routes_write import GenerationId, Writer
from keeptake.capture.schemas import SimilarAnswer, StoredAnswer, body, problems
from keeptake.capture.uploads import Uploads, Whose
from keeptake.curation.prompts import parse_key
from keeptake.embedding import DEFAULT_MODEL
from keeptake.errors import GenerationStatus, LedgerUnavailableError
from keeptake.ledger.listing import AUDIO, CLAIMED_AUDIO, PLACED_MODELS, STANDING
from keeptake.settings import listed

MEDIA_TYPES = {
    "mp3": "audio/mpeg",
    "wav": "audio/wav",
    "ogg": "audio/ogg",
    "opus": "audio/ogg",
    "flac": "audio/flac",
    "m4a": "audio/mp4",
    "mp4": "audio/mp4",
    "webm": "audio/webm",
    "aiff": "audio/aiff",
}
_AUDIO = {"audio/mpeg": {"schema": {"type": "string", "format": "binary"}}}
_RAW = body({"type": "string", "format": "binary"}, "application/octet-stream")

TempoBpm = Annotated[
    float | None,
    Query(ge=0, le=1000, allow_inf_nan=False, description="Heard beats per minute, this one included.", examples=[120]),
]
HeardKey = Annotated[
    str | None,
    Query(max_length=40, description="Heard key, in any usual spelling; a letter alone is major.", examples=["F# minor", "Ebm"]),
]

router = APIRouter(tags=["audio"])


@router.put(
    "/{generation_id}/audio",
    status_code=201,
    response_model=None,
    responses={201: {"model": StoredAnswer}, **problems(400, 404, 408, 409, 413, 415, 422, 429, 500, 503)},
    openapi_extra=_RAW,
)
async def send_audio(generation_id: GenerationId, request: Request, principal: Writer) -> Response:
    """Send a take's audio, at most 50 MB, as it is; it is proved to decode before it is kept."""
    rows = await request.app.state.pool.rows(CLAIMED_AUDIO, (generation_id,))
    if not rows:
        raise _unknown(generation_id)
    uploads: Uploads = request.app.state.uploads
    sha256 = await uploads.receive(request, Whose(*rows[0]))
    return json_answer({"success": True, "generationId": generation_id, "sha256": sha256}, status=201)


@router.get(
    "/{generation_id}/audio",
    **operation(None, 404, 416, content=_AUDIO, others={206: {"description": "The range.", "content": _AUDIO}, **UNCHANGED}),
    openapi_extra=header_parameters("Range", "If-Range", "If-None-Match"),
)
async def play_audio(generation_id: GenerationId, request: Request, principal: Reader) -> Response:
    """Play a take: the bytes as they were received, whole or in one range."""
    rows = await request.app.state.pool.rows(AUDIO, (generation_id,))
    if not rows:
        raise _unknown(generation_id)
    sha256, size_bytes, kind = rows[0]
    if sha256 is None:
        raise Problem(404, "audio-missing", "its audio is not in the store (yet): see audioStatus in the record")
    headers = {"Accept-Ranges": "bytes", "ETag": f'"{sha256}"', "Cache-Control": "private, max-age=3600"}
    if is_unchanged(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    asked, if_range = request.headers.get("range"), request.headers.get("if-range")
    first, last, is_part = byte_range(asked, size_bytes, if_range=if_range, etag=headers["ETag"])
    headers["Content-Length"] = str(last - first + 1)
    if is_part:
        headers["Content-Range"] = f"bytes {first}-{last}/{size_bytes}"
    store: AudioStore = request.app.state.audio_store
    if await asyncio.to_thread(store.size_bytes, sha256) != size_bytes:  # before the headers: a body cannot say it any more
        raise Problem(404, "audio-missing", "the store has lost its audio: send it again, or let it be fetched again")
    pieces: Iterator[bytes] = store.chunks(sha256, first, last - first + 1)
    media_type = MEDIA_TYPES.get(kind, "application/octet-stream")
    return StreamingResponse(iterate_in_threadpool(pieces), 206 if is_part else 200, headers=headers, media_type=media_type)


@router.get("/{generation_id}/similar", **operation(SimilarAnswer, 404, 409))
async def similar_takes(
    generation_id: GenerationId,
    request: Request,
    principal: Annotated[Principal, Depends(Guard("ml:read", "read"))],
    k: Annotated[int, Query(ge=1, le=100, description="How many; fewer come only where no more pass.")] = 10,
    userId: Name = None,
    provider: Name = None,
    genre: Name = None,
    key: HeardKey = None,
    tempoFromBpm: TempoBpm = None,
    tempoToBpm: TempoBpm = None,
    model: Name = None,
) -> Response:
    """Takes that sound most like this one, of those that pass every filter given, in a model's space or musicnn-msd's."""
    from keeptake.ledger.embeddings import current_scaler
    from keeptake.ledger.similarity import EmbeddingPendingError, Filters, similar

    if tempoFromBpm is not None and tempoToBpm is not None and tempoFromBpm > tempoToBpm:
        raise Problem(422, "invalid-parameter", "tempoFromBpm is above tempoToBpm", pointer="/query/tempoFromBpm")
    filters = Filters(userId, provider, genre, _known_key(key), tempoFromBpm, tempoToBpm)
    state, space = request.app.state, model or DEFAULT_MODEL
    rows = await state.pool.rows(STANDING, (generation_id,))
    if not rows:
        raise _unknown(generation_id)
    status, reason = rows[0]
    if status == GenerationStatus.QUARANTINED:
        detail = f"the take is quarantined ({reason}), and has no sound to compare: send its audio, or let it be tried again"
        raise Problem(409, "generation-quarantined", detail)
    try:
        async with asyncio.timeout(state.settings.api_deadline_s):
            found = await asyncio.to_thread(similar, state.ledger, generation_id, k, filters, model=space)
            scaler = await asyncio.to_thread(current_scaler, state.ledger, space)
    except EmbeddingPendingError:
        await _check_model(request, space)
        raise Problem(409, "embedding-pending", f"the take is not placed by {space} yet: repeat later") from None
    except TimeoutError:
        raise LedgerUnavailableError("the search took too long") from None
    version = f"{scaler.model}@{scaler.model_version}/{scaler.version}" if scaler else ""
    items = [{"generationId": item.generation_id, "similarity": item.similarity} for item in found]
    return json_answer({"items": items, "modelVersion": version})


async def _check_model(request: Request, model: str) -> None:
    state = request.app.state
    placed = [name for (name,) in await state.pool.rows(PLACED_MODELS)]
    models = sorted({DEFAULT_MODEL, *listed(state.settings.embedding_models), *placed})
    if model not in models:
        raise Problem(422, "unknown-model", f"the models are {', '.join(models)}", pointer="/query/model")


def _known_key(text: str | None) -> str | None:
    key = None if text is None else parse_key(text)
    if text is not None and key is None:
        raise Problem(422, "invalid-parameter", "key is a tonic and a mode, such as F# minor or Eb major", pointer="/query/key")
    return key


def _unknown(generation_id: str) -> Problem:
    return Problem(404, "generation-unknown", f"no generation {generation_id} is known")
