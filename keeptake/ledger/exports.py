"""Whole exports, written by Postgres itself and read in large pieces: the original's JSONL and CSV lines.

All is read in one transaction, and with it in one snapshot; the server writes the final text of a line, and we pass its bytes on
without looking at them: a line never becomes a Python string. JSON comes in COPY's binary form, which looks for nothing to quote:
each message is a row of one field behind a prefix of fixed length. The first rows come through index lookups, so that the first
byte waits for no sort and no hash table; the rest through hash tables, in the order in which the table keeps it.

Belongs here: the text of exports and the reading of a COPY. Does not: HTTP, compression (`capture/exporting.py`).
"""

import select
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import pq, sql

from keeptake.errors import BusyError, LedgerUnavailableError
from keeptake.ledger.living import LIVING
from keeptake.ledger.outages import unavailable
from keeptake.ledger.serving import DEADLINE_S, break_off

PIECE_BYTES = 1 << 18
PAUSE_S = 30.0  # Postgres may be silent this long in the middle of an export
LONGEST_S = 3600.0  # a reader slower than this keeps old row versions alive for everybody
AT_ONCE = 2  # exports of one key
_NAMESPACE = 0x4B58

# RFC 3339 behind its opening quote, with milliseconds where there is a fraction: one microsecond more keeps zeros at the end from
# being left out. The session's time zone is UTC; to_char and date_trunc read a format or a name in every row: twice the cost.
_STAMP = "g.created_at::timestamp"
_BINNED = f"date_bin('1 {{}}', {_STAMP}, '2000-01-01')"
_QUOTED_TIME = (
    f"CASE WHEN {_BINNED.format('second')} = {_STAMP} THEN left(to_json({_STAMP})::text, 20)"
    f" ELSE left(to_json({_BINNED.format('millisecond')} + interval '1 microsecond')::text, 24) END"
)
_TIME = f"substr({_QUOTED_TIME}, 2) || 'Z'"
# As claimed, else as measured, else as asked for; text, so that 30 prints as 30.
_ASKED = """CASE WHEN jsonb_typeof(g.generation_params -> 'duration') = 'number'
    THEN nullif(g.generation_params ->> 'duration', '0') END"""
# Looked up for rows without a claim only: joined to all, the measured ones cost every row a tenth.
_MEASURED = "(SELECT a.duration_s FROM audio a WHERE a.sha256 = g.audio_sha256)"
_DURATION = f"coalesce(g.duration_s::text, {_MEASURED}::text, {_ASKED})"
# As in a record: claimed, measured, or what the address ends in.
_FORMAT = (
    "coalesce(g.format, (SELECT a.format FROM audio a WHERE a.sha256 = g.audio_sha256),"
    " lower(substring(g.audio_url from '^[^?#]*/[^/?#]*[.]([A-Za-z0-9]{1,5})([?#]|$)')))"
)
_FROM = """
    FROM generations g
    LEFT JOIN features f ON f.audio_sha256 = g.audio_sha256
"""
HEAD_ROWS = 500
_BINARY_HEADER, _BINARY_PREFIX = 19, 6  # bytes before the first row; before the text of a row of one field
_BOUNDARY = f"coalesce((SELECT id FROM generations ORDER BY id OFFSET {HEAD_ROWS} LIMIT 1), {2**63 - 1})"
_QUIET = "SET LOCAL timezone = 'UTC'; SET LOCAL jit = off; SET LOCAL max_parallel_workers_per_gather = 0;"
# The head by index lookups, which answer at once; the rest by hash tables, which cost a third less and take a moment to build.
_SETTINGS = (
    f"{_QUIET} SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL enable_sort = off",
    f"{_QUIET} SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = off; SET LOCAL work_mem = '64MB'",
)


class _Literal(str):
    """Text of a line that is the same in every row; anything else in a line is an expression."""


Pieces = list[str]


def _json(expression: str) -> Pieces:
    return [f"coalesce(to_json({expression})::text, 'null')"]


def _bare(expression: str) -> Pieces:
    return [f"coalesce({expression}, 'null')"]


def _truth(expression: str) -> Pieces:
    return [f"CASE {expression} WHEN true THEN 'true' WHEN false THEN 'false' ELSE 'null' END"]


def _object(fields: Mapping[str, Pieces]) -> Pieces:
    """Pieces that read as a JSON object once joined."""
    pieces: Pieces = []
    for at, (name, value) in enumerate(fields.items()):
        pieces += [_Literal(f'{", " if at else "{"}"{name}": '), *value]
    return [*pieces, _Literal("}")]


def _joined(pieces: Pieces) -> str:
    """The pieces as one expression with as few joins as they allow, in halves: each join copies what it joins."""
    merged: Pieces = []
    for piece in pieces:
        if isinstance(piece, _Literal) and merged and isinstance(merged[-1], _Literal):
            merged[-1] = _Literal(merged[-1] + piece)
        else:
            merged.append(piece)
    return _halved([f"'{piece}'" if isinstance(piece, _Literal) else f"({piece})" for piece in merged])


def _halved(texts: list[str]) -> str:
    half = len(texts) // 2
    return f"({_halved(texts[:half])} || {_halved(texts[half:])})" if half else texts[0]


_HEARD = {
    "tempo_bpm": _bare("f.tempo_bpm::text"),
    "key": _json("f.key"),
    "has_vocals": _truth("f.has_vocals"),
    "loudness_lufs": _bare("f.loudness_lufs::text"),
}
_UNHEARD = "{" + ", ".join(f'"{name}": null' for name in _HEARD) + "}"
_METADATA: Mapping[str, Pieces] = {
    "generation_id": [_Literal('"'), "g.generation_id", _Literal('"')],  # nothing in its alphabet needs escaping
    "provider": _json("g.provider"),
    "model_used": _json("g.model_used"),
    "generation_params": ["g.generation_params::text"],
    "liked": _truth("g.liked"),
    "rating": _bare("g.rating::text"),
    "used": _truth("g.used"),
    "created_at": [_QUOTED_TIME, _Literal('Z"')],
    "heard": [f"CASE WHEN f.audio_sha256 IS NULL THEN '{_UNHEARD}' ELSE {_joined(_object(_HEARD))} END"],
}
QUALITY_SCALES = {"unit": "g.quality_score", "rating": "g.rating"}


def _line(scale: str) -> str:
    fields = {
        "prompt": _json("coalesce(g.ai_enhanced_prompt, g.user_prompt)"),
        "audio_url": _json("g.audio_url"),
        "duration": _bare(_DURATION),
        "metadata": _object(_METADATA),
        "quality_score": _bare(f"{QUALITY_SCALES[scale]}::text"),
    }
    return _joined([*_object(fields), _Literal("\n")])


CSV_COLUMNS = {
    "generationId": "g.generation_id",
    "userPrompt": "g.user_prompt",
    "aiEnhancedPrompt": "g.ai_enhanced_prompt",
    "audioUrl": "g.audio_url",
    "duration": _DURATION,
    "genre": "g.generation_params ->> 'genre'",
    "bpm": "g.generation_params ->> 'bpm'",
    "rating": "g.rating::text",
    "used": "g.used::text",
}
MORE_CSV_COLUMNS = {
    "provider": "g.provider",
    "modelUsed": "g.model_used",
    "format": _FORMAT,
    "key": "g.generation_params ->> 'key'",
    "mood": "g.generation_params ->> 'mood'",
    "style": "g.generation_params ->> 'style'",
    "liked": "g.liked::text",
    "qualityScore": "g.quality_score::text",
    "status": "g.status",
    "usedForTraining": "g.used_for_training::text",
    "createdAt": _TIME,
    "heardTempoBpm": "f.tempo_bpm::text",
    "heardKey": "f.key",
    "heardVocals": "f.has_vocals::text",
    "heardLoudnessLufs": "f.loudness_lufs::text",
    "audioSha256": "g.audio_sha256",
}
_NEVER_FORMULA = frozenset(("duration", "rating", "used", "liked", "qualityScore", "usedForTraining", "createdAt", "audioSha256"))
_NEVER_FORMULA |= {"heardTempoBpm", "heardVocals", "heardLoudnessLufs"}


def _cell(name: str, expression: str, *, is_excel_safe: bool) -> str:
    if not is_excel_safe or name in _NEVER_FORMULA:
        return f'{expression} AS "{name}"'
    # = + - @, tab and CR first: a spreadsheet would run the cell
    return f"CASE WHEN ascii({expression}) IN (61, 43, 45, 64, 9, 13) THEN '''' ELSE '' END || ({expression}) AS \"{name}\""


def _rows(columns: str, provider: str | None, least_quality: float | None, *, part: str = "true") -> sql.Composed:
    conditions = [sql.SQL(LIVING), sql.SQL(part)]
    if provider is not None:
        conditions.append(sql.SQL("g.provider = {}").format(sql.Literal(provider)))  # type: ignore[arg-type]  # Composed is as good
    if least_quality is not None:
        conditions.append(sql.SQL("g.quality_score >= {}").format(sql.Literal(least_quality)))  # type: ignore[arg-type]
    where = sql.SQL(" AND ").join(conditions)
    return sql.SQL("SELECT ") + sql.SQL(columns) + sql.SQL(f"{_FROM} WHERE ") + where


def _parts(columns: str, provider: str | None, least_quality: float | None, *formats: str) -> tuple[bytes, ...]:
    """COPY of the head, in order, and COPY of the rest, each in its own format."""
    head = _rows(columns, provider, least_quality, part=f"g.id <= {_BOUNDARY}") + sql.SQL(" ORDER BY g.id")
    rest = _rows(columns, provider, least_quality, part=f"g.id > {_BOUNDARY}")
    copy = "COPY ({}) TO STDOUT (FORMAT %s)"
    return tuple(sql.SQL(copy % form).format(rows).as_bytes() for rows, form in zip((head, rest), formats, strict=True))


def jsonl_queries(*, provider: str | None = None, least_quality: float | None = None, scale: str = "unit") -> tuple[bytes, ...]:
    """COPYs of the original's training lines."""
    return _parts(_line(scale), provider, least_quality, "binary", "binary")


def csv_queries(
    *,
    provider: str | None = None,
    least_quality: float | None = None,
    more_columns: Iterable[str] = (),
    is_excel_safe: bool = True,
) -> tuple[bytes, ...]:
    """COPYs of the original's CSV, nine columns and then the ones of `MORE_CSV_COLUMNS` that are asked for."""
    columns = CSV_COLUMNS | {name: MORE_CSV_COLUMNS[name] for name in more_columns}
    cells = ", ".join(_cell(name, expression, is_excel_safe=is_excel_safe) for name, expression in columns.items())
    return _parts(cells, provider, least_quality, "csv, HEADER", "csv")


def arrow_query(*, provider: str | None = None, least_quality: float | None = None) -> str:
    """The same rows, flat and typed, for Arrow."""
    columns = f"""
        coalesce(g.ai_enhanced_prompt, g.user_prompt) AS prompt, g.audio_url, ({_DURATION})::float8 AS duration, g.generation_id,
        g.provider, g.model_used, g.generation_params::text AS generation_params, g.liked, g.rating, g.used, g.created_at,
        f.tempo_bpm AS heard_tempo_bpm, f.key AS heard_key, f.has_vocals AS heard_has_vocals,
        f.loudness_lufs AS heard_loudness_lufs, g.quality_score
    """
    return (_rows(columns, provider, least_quality) + sql.SQL(" ORDER BY g.id")).as_string()


def place_of(arguments: dict[str, Any], owner: str, *, deadline_s: float = DEADLINE_S) -> psycopg.Connection:
    """A connection in a snapshot of its own that holds one of an owner's places; closing it frees the place.

    Raises
    ------
    BusyError
        If the owner runs as many exports already.
    LedgerUnavailableError
        If the ledger does not answer within the deadline.
    """
    try:
        connection = psycopg.connect(**arguments, autocommit=True)
    except psycopg.OperationalError as outage:
        raise unavailable(outage, "no connection to the ledger for an export") from outage
    with _watched(connection, deadline_s):
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        # Locks of the transaction: they go with it, however it ends.
        for place in range(AT_ONCE):
            taken = "SELECT pg_try_advisory_xact_lock(%s, hashtext(%s))"
            row = connection.execute(taken, (_NAMESPACE, f"{owner}:{place}")).fetchone()
            if row is not None and row[0]:
                return connection
        raise BusyError(f"{AT_ONCE} exports of this key are running: wait until one ends")


@contextmanager
def _watched(connection: psycopg.Connection, deadline_s: float) -> Iterator[None]:
    """Break a connection off that does not answer in time, and close it where the block fails."""
    watchdog = threading.Timer(deadline_s, break_off, (connection,))
    watchdog.daemon = True
    watchdog.start()
    try:
        yield
    except psycopg.OperationalError as outage:
        connection.close()
        raise unavailable(outage, "the ledger broke an export off") from outage
    except BaseException:
        connection.close()
        raise
    finally:
        watchdog.cancel()


class CopyReader:
    """COPYs, one after another, that are read piece by piece, by one thread at a time; any thread may break it off.

    Parameters
    ----------
    arguments : dict
        Of libpq.
    queries : sequence of bytes
        `COPY (…) TO STDOUT`, the head and the rest.
    owner : str
        At most `AT_ONCE` exports of one owner run at once, in all processes together.
    deadline_s : float
        How long the ledger may take to begin.

    Raises
    ------
    BusyError
        If the owner runs as many exports already.
    LedgerUnavailableError
        If the ledger does not answer.
    """

    def __init__(
        self, arguments: dict[str, Any], queries: Sequence[bytes], *, owner: str, deadline_s: float = DEADLINE_S
    ) -> None:
        self.rows = 0
        self.is_done = False
        self._lock = threading.Lock()
        self._ends_s = time.monotonic() + LONGEST_S
        self._first = True
        self._left = list(zip(_SETTINGS, queries, strict=True))
        self._deadline_s = deadline_s
        self._connection = place_of(arguments, owner, deadline_s=deadline_s)
        with _watched(self._connection, deadline_s):
            self._start()

    def _start(self) -> None:
        settings, query = self._left.pop(0)
        self._connection.pgconn.exec_(settings.encode())
        self._connection.pgconn.send_query(query)
        result = self._result(self._deadline_s if self._first else PAUSE_S)
        if result is None or result.status != pq.ExecStatus.COPY_OUT:
            raise LedgerUnavailableError(f"an export did not start: {_state(result)}")
        self._prefix = _BINARY_PREFIX if result.binary_tuples else 0
        self._skipped = _BINARY_HEADER + _BINARY_PREFIX if result.binary_tuples else 0

    def read(self) -> bytes:
        """Return the next piece, at most a line more than `PIECE_BYTES`; empty at the end.

        Raises
        ------
        LedgerUnavailableError
            If the export fails midway.
        """
        with self._lock:
            return b"" if self.is_done else self._read()

    def _read(self) -> bytes:
        pgconn = self._connection.pgconn
        lines: list[memoryview] = []
        size = 0
        try:
            while size < PIECE_BYTES:
                length, message = pgconn.get_copy_data(1)
                if length > 0:
                    if line := message[self._skipped :]:  # nothing is left of the binary form's last message
                        lines.append(line)
                        size += length
                    self._skipped = self._prefix
                elif length == 0:
                    if lines and self._first:
                        break  # the first piece goes out as soon as there is something
                    self._wait(PAUSE_S)
                else:
                    self._finish()
                    if self.is_done:
                        break
                    self._start()
        except psycopg.OperationalError as outage:
            raise unavailable(outage, "the ledger broke an export off") from outage
        self.rows += len(lines)
        self._first = False
        return b"".join(lines)

    def _finish(self) -> None:
        result = self._result(PAUSE_S)
        if result is None or result.status != pq.ExecStatus.COMMAND_OK:
            raise LedgerUnavailableError(f"an export failed midway: {_state(result)}")
        self._connection.pgconn.get_result()  # the end of this one's results: only then the next may start
        self.is_done = not self._left

    def _result(self, patience_s: float) -> Any:  # noqa: ANN401 -- psycopg's class is an abstract one of three
        while self._connection.pgconn.is_busy():
            self._wait(patience_s)
        return self._connection.pgconn.get_result()

    def _wait(self, patience_s: float) -> None:
        if time.monotonic() > self._ends_s:
            raise LedgerUnavailableError(f"an export may take {LONGEST_S:g} s")
        ready, _, _ = select.select([self._connection.pgconn.socket], [], [], patience_s)
        if not ready:
            raise LedgerUnavailableError(f"the ledger was silent for {patience_s:g} s in an export")
        self._connection.pgconn.consume_input()

    def break_off(self) -> None:
        """End it from any thread, at once."""
        break_off(self._connection)

    def close(self) -> None:
        """Free the server's side; waits for a read that is going on."""
        if not self.is_done:
            self.break_off()
        with self._lock:
            self._connection.close()


def _state(result: Any) -> str:  # noqa: ANN401 -- as above
    if result is None:
        return "no result"
    state = result.error_field(pq.DiagnosticField.SQLSTATE)
    return f"SQLSTATE {state.decode()}" if state else str(result.status)
