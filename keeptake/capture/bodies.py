"""Bodies, read within bounds before anything looks into them.

Belongs here: size, time and media type of what a client sends. Does not: what stands in it (`records.py`).
"""

import asyncio

from fastapi import Request
from starlette.requests import ClientDisconnect

from keeptake.capture.problems import Problem
from keeptake.records import MAX_RECORD_BYTES, Refused

JSON_TYPES = ("application/json",)
NDJSON_TYPES = ("application/x-ndjson", "application/ndjson", "application/jsonl")

_STATUS = {"not-json": 400, "too-long-record": 413}


async def read_body(request: Request, types: tuple[str, ...] = JSON_TYPES, *, most: int = MAX_RECORD_BYTES) -> bytes:
    """Read a whole body.

    Raises
    ------
    Problem
        415 for another media type or a compressed body, 413 above `most` bytes (before they are read, where the client says how
        many there are), 408 for a client that stops sending, 400 for one that goes away.
    """
    headers = request.headers
    given = headers.get("content-type", types[0]).partition(";")[0].strip().lower()
    if given not in types:
        raise Problem(415, "unsupported-media-type", f"send {' or '.join(types)}")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "unsupported-encoding", "send the body uncompressed")
    length = headers.get("content-length", "0")
    if length.isascii() and length.isdigit() and int(length) > most:
        raise _too_large(most)
    pieces: list[bytes] = []
    size = 0
    chosen, clock = request.app.state.settings, asyncio.get_running_loop().time
    ends_s = clock() + chosen.api_body_timeout_s
    try:
        async with asyncio.timeout_at(min(ends_s, clock() + chosen.api_body_pause_s)) as limit:
            async for piece in request.stream():
                size += len(piece)
                if size > most:
                    raise _too_large(most)
                pieces.append(piece)
                limit.reschedule(min(ends_s, clock() + chosen.api_body_pause_s))
    except TimeoutError:
        raise Problem(408, "body-too-slow", "the body did not arrive in time", headers={"Connection": "close"}) from None
    except ClientDisconnect:
        raise Problem(400, "body-incomplete", "the body ended early") from None
    return b"".join(pieces)


def refusal(refused: Refused) -> Problem:
    """Answer to a record or a feedback that was refused."""
    return Problem(_STATUS.get(refused.reason, 422), refused.reason, refused.detail, pointer=refused.pointer)


def _too_large(most: int) -> Problem:
    return Problem(413, "body-too-large", f"a body has at most {most} bytes here", headers={"Connection": "close"})
