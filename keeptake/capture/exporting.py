"""Exports over HTTP: large pieces straight from Postgres, compressed where asked, broken off visibly where they fail.

Reading and compressing happen in threads; the event loop only passes pieces on, when the client has taken the last one. A failure
midway raises, so that uvicorn closes the connection without the last chunk and the client sees that something is missing.
Belongs here: streaming. Does not: the text of the lines (`ledger/exports.py`).
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from fastapi import Request
from starlette.responses import Response, StreamingResponse

from keeptake.capture import metrics
from keeptake.capture.problems import Problem, log_fault
from keeptake.errors import BusyError, KeeptakeError

AT_ONCE = 8  # exports of one worker process: each holds a connection
GZIP_LEVEL = 4
_GZIP = 16 + zlib.MAX_WBITS


class Reader(Protocol):
    """An export that is read in pieces by one thread at a time."""

    rows: int

    def read(self) -> bytes:
        """Next piece; empty at the end."""

    def break_off(self) -> None:
        """End it, from any thread."""

    def close(self) -> None:
        """Free what it holds; waits for a read that is going on."""


class BrokenExportError(KeeptakeError):
    """An export ended before its end."""


class Exporter:
    """The exports of this process."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="export")
        self._running = 0

    async def answer(self, request: Request, begin: Callable[[], Reader], *, kind: str, media_type: str) -> Response:
        """Start an export and answer with its stream.

        Raises
        ------
        Problem
            429 where the key, or this process, runs as many exports as it may.
        """
        if self._running >= AT_ONCE:
            raise _too_many("this service runs as many exports as it may")
        loop = asyncio.get_running_loop()
        self._running += 1
        try:
            reader = await loop.run_in_executor(self._threads, begin)
        except BusyError as busy:
            self._running -= 1
            raise _too_many(str(busy)) from None
        except BaseException:
            self._running -= 1
            raise
        headers = {
            "Cache-Control": "no-store",
            "Vary": "Accept-Encoding",
            "Content-Disposition": f"attachment; filename=keeptake.{kind}",
        }
        is_zipped = kind != "parquet" and _accepts_gzip(request.headers.get("accept-encoding", ""))
        if is_zipped:
            headers["Content-Encoding"] = "gzip"
        return StreamingResponse(self._pieces(reader, kind, is_zipped=is_zipped), media_type=media_type, headers=headers)

    async def _pieces(self, reader: Reader, kind: str, *, is_zipped: bool) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        read = _zipped(reader) if is_zipped else reader.read
        try:
            while piece := await loop.run_in_executor(self._threads, read):
                yield piece
        except Exception as fault:
            log_fault(fault)
            raise BrokenExportError(f"a {kind} export broke off after {reader.rows} rows") from None
        finally:
            self._running -= 1
            metrics.export_rows.labels(kind).inc(reader.rows)
            self._end(reader)

    def _end(self, reader: Reader) -> None:
        """Without waiting: this also runs when the client has gone and we are being cancelled."""
        reader.break_off()
        try:
            self._threads.submit(reader.close)
        except RuntimeError:  # the service ends, and its threads have ended before this export
            reader.close()

    def close(self) -> None:
        """End its threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _zipped(reader: Reader) -> Callable[[], bytes]:
    press = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, _GZIP)
    is_ended = False

    def read() -> bytes:
        nonlocal is_ended
        while not is_ended:
            piece = reader.read()
            is_ended = not piece
            pressed = press.flush() if is_ended else press.compress(piece) + press.flush(zlib.Z_SYNC_FLUSH)
            if pressed:
                return pressed
        return b""

    return read


def _accepts_gzip(accepted: str) -> bool:
    weights = {}
    for part in accepted.lower().split(","):
        coding, _, weight = part.partition(";")
        weights[coding.strip()] = weight.replace(" ", "")
    said = weights.get("gzip", weights.get("*"))  # what is named counts before what stands for all others
    return said is not None and said not in ("q=0", "q=0.0", "q=0.00", "q=0.000")


def _too_many(detail: str) -> Problem:
    return Problem(429, "too-many-exports", detail, headers={"Retry-After": "5"})
