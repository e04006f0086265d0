"""Bodies, read within bounds before anything looks into them.

Belongs here: size, time and media type of what a client sends. Does not: what stands in it (`records.py`).
"""

import asyncio
from collections.abc import AsyncIterator

from fastapi import Request
from starlette.requests import ClientDisconnect

from keeptake.capture.problems import Problem
from keeptake.records import MAX_RECORD_BYTES, Refused

JSON_TYPES = ("application/json",)
NDJSON_TYPES = ("application/x-ndjson", "application/ndjson", "application/jsonl")

SLOWEST_BYTES_A_S = 128 << 10  # 1 Mbit/s
_LONGEST_LENGTH = 18  # digits of a Content-Length
_STATUS = {"not-json": 400, "too-long-record": 413}


async def read_body(request: Request, types: tuple[str, ...] = JSON_TYPES, *, most: int = MAX_RECORD_BYTES) -> bytes:
    """Read a whole body.

    Raises
    ------
    Problem
        415 for another media type or a compressed body, and as `pieces_of`.
    """
    headers = request.headers
    given = headers.get("content-type", types[0]).partition(";")[0].strip().lower()
    if given not in types:
        raise Problem(415, "unsupported-media-type", f"send {' or '.join(types)}")
    refuse_encoded(request)
    body = b"".join([piece async for piece in pieces_of(request, most)])
    if types == JSON_TYPES and not body.strip():
        raise Problem(400, "not-json", "the body is empty: send a JSON object", pointer="")
    return body


def refuse_encoded(request: Request) -> None:
    """Refuse a compressed body.

    Raises
    ------
    Problem
        415.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "unsupported-encoding", "send the body uncompressed, without Content-Encoding")


async def pieces_of(request: Request, most: int) -> AsyncIterator[bytes]:
    """Read a body piece by piece, as it comes.

    Its sender may pause for `api_body_pause_s`, and take `api_body_timeout_s` and a second more for each `SLOWEST_BYTES_A_S`
    that came: a large body on a slow line has its time, and who sends nothing, or a byte now and then, has not.

    Raises
    ------
    Problem
        413 above `most` bytes (before they are read, where the client says how many there are), 408 for a client that stops
        sending or is too slow, 400 for one that goes away.
    """
    length = request.headers.get("content-length", "0")
    if length.isascii() and length.isdigit() and (len(length) > _LONGEST_LENGTH or int(length) > most):
        raise _too_large(most)
    chosen, clock = request.app.state.settings, asyncio.get_running_loop().time
    ends_s, size, stream = clock() + chosen.api_body_timeout_s, 0, request.stream()
    while True:
        try:
            async with asyncio.timeout_at(min(ends_s + size / SLOWEST_BYTES_A_S, clock() + chosen.api_body_pause_s)):
                piece = await anext(stream, None)
        except TimeoutError:
            raise _too_slow(chosen.api_body_timeout_s, chosen.api_body_pause_s) from None
        except ClientDisconnect:
            raise Problem(400, "body-incomplete", "the body ended early: send it again, whole") from None
        if piece is None:
            return
        size += len(piece)
        if size > most:
            raise _too_large(most)
        yield piece


def refusal(refused: Refused) -> Problem:
    """Answer to a record or a feedback that was refused."""
    return Problem(_STATUS.get(refused.reason, 422), refused.reason, refused.detail, pointer=refused.pointer)


def _too_large(most: int) -> Problem:
    return Problem(413, "body-too-large", f"a body has at most {most} bytes here", headers={"Connection": "close"})


def _too_slow(timeout_s: float, pause_s: float) -> Problem:
    detail = (
        f"the body did not arrive in time: it may pause for {pause_s:g} s, and take {timeout_s:g} s and a second more for each"
        f" {SLOWEST_BYTES_A_S >> 10} KiB; send it again, in smaller parts if your line is slower"
    )
    return Problem(408, "body-too-slow", detail, headers={"Connection": "close"})
