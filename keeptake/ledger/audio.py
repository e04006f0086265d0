"""Whose audio is missing, and what became of the attempts: SQL of the audio columns of `generations`, and of `audio`.

Conventions: a row whose audio failed keeps everything that is known about the attempts and can always be tried again; nothing
here deletes. Belongs here: pending rows, outcomes, quarantine. Does not: fetching (`custody/`), what was heard (`analyses.py`).
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa

from keeptake.errors import AudioReason, AudioStatus, ConfigurationError
from keeptake.ledger.bulk import upsert
from keeptake.ledger.connection import Ledger
from keeptake.ledger.living import LIVING
from keeptake.ledger.tables import audio

MOST_PENDING = 20_000  # rows that one run takes on; the sensor asks again for the others


class PendingAudio(NamedTuple):
    """A generation whose audio is to be fetched."""

    id: int
    generation_id: str
    audio_url: str
    provider: str
    root: Path | None  # folder under which a relative address is read, and nowhere else
    attempts: int
    claimed_format: str | None
    claimed_duration_s: float | None


class AudioFile(NamedTuple):
    """A row of `audio`: an object of the store and what it was measured to be."""

    sha256: str
    storage_key: str
    size_bytes: int
    format: str
    codec: str
    duration_s: float
    sample_rate_hz: int
    channels: int
    flags: tuple[str, ...]
    measures: Mapping[str, float | None]


class AudioOutcome(NamedTuple):
    """What one attempt at a generation's audio led to."""

    id: int
    status: AudioStatus
    reason: AudioReason | None
    detail: Mapping[str, Any]  # JSON: a sentence, size, type of the first bytes, disagreement with the claims
    file: AudioFile | None
    flags: tuple[str, ...]  # of the generation: where its claims and the measurement differ
    attempted_at: datetime
    next_attempt_at: datetime | None


class Quarantined(NamedTuple):
    """A generation whose audio failed, as an operator sees it."""

    generation_id: str
    reason: str
    detail: str
    provider: str
    size_bytes: int | None
    first_bytes_type: str | None
    attempts: int
    first_attempt_at: datetime
    last_attempt_at: datetime
    next_attempt_at: datetime | None


_DUE = f"(audio_status = 'pending' OR audio_status = 'retrying' AND audio_next_attempt_at <= now()) AND {LIVING}"


def pending_audio(ledger: Ledger, day: str, *, most: int = MOST_PENDING) -> list[PendingAudio]:
    """Generations of a day whose audio was never tried, or whose next attempt is due, oldest first."""
    with ledger.begin() as connection:
        rows = connection.execute(
            sa.text(
                "SELECT id, generation_id, audio_url, provider, audio_root, audio_attempts, format, duration_s FROM generations"
                f" WHERE captured_on = :day AND {_DUE} ORDER BY id LIMIT :most"
            ),
            {"day": day, "most": most},
        ).all()
    return [PendingAudio._make(row)._replace(root=Path(row.audio_root) if row.audio_root else None) for row in rows]


def count_due(ledger: Ledger, day: str) -> int:
    """How many generations of a day `pending_audio` would give without its limit."""
    with ledger.begin() as connection:
        statement = sa.text(f"SELECT count(*) FROM generations WHERE captured_on = :day AND {_DUE}")
        count: int = connection.execute(statement, {"day": day}).scalar_one()
        return count


def save_outcomes(connection: sa.Connection, outcomes: Sequence[AudioOutcome]) -> int:
    """Store a chunk of outcomes: files first, then the generations that name them.

    Returns
    -------
    int
        Generations that took their outcome: one that is erased, or has got other audio meanwhile, keeps what it has.
    """
    files = [outcome.file for outcome in outcomes if outcome.file]
    upsert(connection, audio, [_row(file) for file in files], conflict=("sha256",), update=())
    if not outcomes:
        return 0
    # What was sent again after its object was damaged can be heard again.
    again = {"files": [file.sha256 for file in files], "reason": AudioReason.DAMAGED_OBJECT.value}
    mended = "UPDATE audio SET analysis_reason = NULL WHERE sha256 = ANY(:files) AND analysis_reason = :reason"
    connection.execute(sa.text(mended), again)
    return connection.execute(sa.text(_SAVE), [_values(outcome) for outcome in outcomes]).rowcount


# An erased generation stays erased, whatever was on its way to it; and stored audio stays: a fetch that was under way when its
# take's audio was uploaded once made an acknowledged upload a quarantined take.
_SAVE = f"""
    UPDATE generations SET
        audio_status = :status, audio_reason = :reason, audio_detail = CAST(:detail AS jsonb), audio_sha256 = :sha256,
        audio_attempts = audio_attempts + 1, audio_first_attempt_at = COALESCE(audio_first_attempt_at, :attempted_at),
        audio_last_attempt_at = :attempted_at, audio_next_attempt_at = :next_attempt_at,
        flags = CASE WHEN flags @> CAST(:flags AS text[]) THEN flags
                     ELSE ARRAY(SELECT DISTINCT unnest(flags || CAST(:flags AS text[])) ORDER BY 1) END,
        status = CASE WHEN :status = 'stored' THEN CASE WHEN audio_sha256 = :sha256 AND status <> 'quarantined'
                                                       THEN status ELSE 'audio-ready' END
                      WHEN :status = 'quarantined' THEN 'quarantined' ELSE 'captured' END,
        status_reason = :reason, updated_at = now()
    WHERE id = :id AND {LIVING} AND (audio_status <> 'stored' OR audio_sha256 = :sha256)
"""


def _values(outcome: AudioOutcome) -> dict[str, Any]:
    return {
        "id": outcome.id,
        "status": outcome.status.value,
        "reason": outcome.reason.value if outcome.reason else None,
        "detail": json.dumps(outcome.detail, ensure_ascii=False, allow_nan=False),
        "sha256": outcome.file.sha256 if outcome.file else None,
        "attempted_at": outcome.attempted_at,
        "next_attempt_at": outcome.next_attempt_at,
        "flags": list(outcome.flags),
    }


def _row(file: AudioFile) -> dict[str, Any]:
    return {**file._asdict(), "flags": list(file.flags)}


def list_quarantined(
    ledger: Ledger, *, reasons: Collection[AudioReason] = (), day: str | None = None, most: int = 50
) -> list[Quarantined]:
    """Generations whose audio failed for good, fetched or heard, or waits for another attempt, the newest failures first.

    Parameters
    ----------
    reasons : collection of AudioReason
        Only these; empty: all.
    day : str, optional
        Only this capture day, YYYY-MM-DD.
    most : int, > 0
        Rows at most.
    """
    with ledger.begin() as connection:
        rows = connection.execute(
            sa.text(
                f"SELECT generation_id, {_REASON}, COALESCE({_DETAIL}, ''), provider,"
                " CAST(audio_detail->>'size_bytes' AS bigint), audio_detail->>'first_bytes_type', audio_attempts,"
                " audio_first_attempt_at, audio_last_attempt_at, audio_next_attempt_at FROM generations"
                f" WHERE {_FAILED}"
                f" AND (cardinality(CAST(:reasons AS text[])) = 0 OR {_REASON} = ANY(:reasons))"
                " AND captured_on = COALESCE(CAST(:day AS date), captured_on)"
                " ORDER BY audio_last_attempt_at DESC NULLS LAST, id DESC LIMIT :most"
            ),
            {"reasons": [reason.value for reason in reasons], "day": day, "most": most},
        ).all()
    return [Quarantined(*row) for row in rows]


# Of audio that could not be fetched, and of stored audio that could not be heard.
_FAILED = f"(audio_status IN ('quarantined', 'retrying') OR status = 'quarantined') AND {LIVING}"
_REASON = "COALESCE(audio_reason, status_reason)"
_DETAIL = "CASE WHEN audio_status = 'stored' THEN 'its audio is stored and could not be heard' ELSE audio_detail->>'detail' END"

# The old reason and the dates stay with the row: history is not lost by hoping.
_AGAIN = """
    audio_status = 'pending', audio_reason = NULL, audio_attempts = 0, audio_next_attempt_at = NULL,
    audio_detail = COALESCE(audio_detail, '{}') || jsonb_build_object('previous_reason', COALESCE(audio_reason, status_reason)),
    audio_sha256 = NULL, status = 'captured', status_reason = NULL, updated_at = now()
"""
_HEAR_AGAIN = f"""
    UPDATE generations SET status = 'audio-ready', status_reason = NULL, updated_at = now()
    WHERE audio_sha256 = ANY(:files) AND status = 'quarantined' AND {LIVING}
"""


def retry(
    ledger: Ledger,
    *,
    reasons: Collection[AudioReason] = (),
    older_than: timedelta | None = None,
    generation_ids: Collection[str] = (),
    is_sound: Callable[[str], bool] | None = None,
    dry_run: bool = False,
) -> dict[str, int]:
    """Let the audio of chosen failed generations be tried again, by the next run of their day.

    Stored audio that could not be heard is heard again, for all generations that have it; what the store has lost is fetched.

    Parameters
    ----------
    reasons : collection of AudioReason
        Only rows that failed for one of these; empty: any.
    older_than : timedelta, optional
        Only rows whose last attempt is longer ago.
    generation_ids : collection of str
        Only these; empty: any.
    is_sound : callable, optional
        Whether the store has an object as it should be, by its hash; by default all that the ledger calls stored is.
    dry_run : bool
        Change nothing, only say what would be tried.

    Returns
    -------
    dict of str to int
        Chosen rows by reason.

    Raises
    ------
    ConfigurationError
        If nothing is chosen by: trying everything again has to be said reason by reason.
    """
    if not (reasons or older_than is not None or generation_ids):
        raise ConfigurationError("choose what to try again: by reason, by age or by generation id")
    conditions = [_FAILED]
    values: dict[str, Any] = {}
    if reasons:
        conditions.append(f"{_REASON} = ANY(:reasons)")
        values["reasons"] = [reason.value for reason in reasons]
    if older_than is not None:
        conditions.append("audio_last_attempt_at < now() - :older_than")
        values["older_than"] = older_than
    if generation_ids:
        conditions.append("generation_id = ANY(:ids)")
        values["ids"] = list(generation_ids)
    chosen = " AND ".join(conditions)  # of the constants above; values are bound
    with ledger.begin() as connection:
        count = sa.text(f"SELECT {_REASON}, count(*) FROM generations WHERE {chosen} GROUP BY 1 ORDER BY 2 DESC, 1")
        counts = {row[0]: row[1] for row in connection.execute(count, values)}
        if not dry_run:
            stored = sa.text(f"SELECT DISTINCT audio_sha256 FROM generations WHERE {chosen} AND audio_status = 'stored'")
            files = connection.execute(stored, values).scalars().all()
            sound = {"files": [sha256 for sha256 in files if is_sound is None or is_sound(sha256)]}
            connection.execute(sa.text("UPDATE audio SET analysis_reason = NULL WHERE sha256 = ANY(:all)"), {"all": files})
            connection.execute(sa.text(_HEAR_AGAIN), sound)
            connection.execute(sa.text(f"UPDATE generations SET {_AGAIN} WHERE {chosen}"), values)
    return counts
