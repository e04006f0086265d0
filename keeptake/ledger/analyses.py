"""What was heard, in the ledger: which audio files of a day wait to be heard, and what becomes of them.

A part of an analysis belongs to the audio's SHA-256 and the part's version; `features` holds the same, flat, and its `versions`
tells in one comparison whether anything of a file is stale. Belongs here: SQL of `analyses` and `features`. Does not: hearing.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

import numpy as np
import sqlalchemy as sa

from keeptake.ledger.bulk import upsert
from keeptake.ledger.connection import Ledger
from keeptake.ledger.living import LIVING
from keeptake.ledger.tables import analyses, features


class Part(Protocol):
    """One part of an analysis, as `keeptake.audio.analyze` gives it."""

    @property
    def version(self) -> str:
        """Of the code that made it."""

    @property
    def status(self) -> str:
        """`ok` or `null`."""

    @property
    def reason(self) -> str | None:
        """Why it is null."""

    @property
    def values(self) -> dict[str, Any]:
        """Plain JSON."""

    @property
    def cpu_s(self) -> float:
        """CPU seconds of the part itself."""


class ToHear(NamedTuple):
    """An audio file that waits to be heard."""

    sha256: str
    parts: tuple[str, ...]  # missing or stale


class Heard(NamedTuple):
    """An audio file that was heard."""

    sha256: str
    parts: Mapping[str, Part]  # those that were asked for
    features: Mapping[str, Any]  # columns of the asked parts
    vector: np.ndarray | None = None  # of the default embedding, where the same pass gave it


def versions_text(versions: Mapping[str, str]) -> str:
    """Versions of all parts as one text, in which any difference shows.

    >>> versions_text({"tonal": "2", "rhythm": "1"})
    'rhythm=1 tonal=2'
    """
    return " ".join(f"{part}={version}" for part, version in sorted(versions.items()))


_PENDING = f"""
    SELECT DISTINCT a.sha256
    FROM generations g JOIN audio a ON a.sha256 = g.audio_sha256 LEFT JOIN features f ON f.audio_sha256 = a.sha256
    WHERE g.captured_on = :day AND {LIVING} AND a.analysis_reason IS NULL AND f.versions IS DISTINCT FROM :versions
    ORDER BY a.sha256
"""

# Audio that was heard for another take already, or that cannot be heard: its generations move on without work.
_ADVANCE = f"""
    UPDATE generations g SET status = 'analyzed', updated_at = now() FROM features f
    WHERE f.audio_sha256 = g.audio_sha256 AND g.status = 'audio-ready' AND f.versions = :versions AND g.captured_on = :day
      AND {LIVING}
"""
_GIVE_UP = f"""
    UPDATE generations g SET status = 'quarantined', status_reason = a.analysis_reason, updated_at = now() FROM audio a
    WHERE a.sha256 = g.audio_sha256 AND g.status = 'audio-ready' AND a.analysis_reason IS NOT NULL AND g.captured_on = :day
      AND {LIVING}
"""


def audio_to_hear(ledger: Ledger, day: str, versions: Mapping[str, str]) -> list[ToHear]:
    """Audio files of a day's generations of which a part is missing or stale, each with those parts.

    Generations whose audio needs no work are moved on.
    """
    values = {"day": day, "versions": versions_text(versions)}
    with ledger.begin() as connection:
        connection.execute(sa.text(_ADVANCE), values)
        connection.execute(sa.text(_GIVE_UP), values)
        files = connection.execute(sa.text(_PENDING), values).all()
        current = connection.execute(
            sa.select(analyses.c.audio_sha256, analyses.c.part, analyses.c.version).where(
                analyses.c.audio_sha256.in_([file.sha256 for file in files])
            )
        ).all()
    have = {(row.audio_sha256, row.part, row.version) for row in current}
    return [
        ToHear(sha256, tuple(part for part, version in versions.items() if (sha256, part, version) not in have))
        for (sha256,) in files
    ]


def save_analyses(connection: sa.Connection, heard: Sequence[Heard], versions: Mapping[str, str]) -> None:
    """Store parts and features, and move the generations on; scores made from older features lag from now on."""
    upsert(connection, analyses, _part_rows(heard), conflict=("audio_sha256", "part"))
    for columns in {tuple(sorted(file.features)) for file in heard}:
        alike = [file for file in heard if tuple(sorted(file.features)) == columns]
        rows = [{"audio_sha256": file.sha256, "versions": versions_text(versions), **file.features} for file in alike]
        upsert(connection, features, rows, conflict=("audio_sha256",))
    connection.execute(
        sa.text(
            "UPDATE generations SET status = CASE status WHEN 'audio-ready' THEN 'analyzed' ELSE status END,"
            f" scored_revision = NULL, updated_at = now() WHERE audio_sha256 = ANY(:files) AND {LIVING}"
        ),
        {"files": [file.sha256 for file in heard]},
    )


def _part_rows(heard: Iterable[Heard]) -> Iterable[dict[str, Any]]:
    now = datetime.now(UTC)
    for file in heard:
        for name, part in file.parts.items():
            yield {
                "audio_sha256": file.sha256,
                "part": name,
                "version": part.version,
                "status": part.status,
                "reason": part.reason,
                "result": part.values,
                "cpu_s": part.cpu_s,
                "analyzed_at": now,  # an upsert leaves the default of an old row as it was
            }


def mark_unhearable(connection: sa.Connection, sha256: str, reason: str) -> None:
    """Note that a file cannot be heard, for good: its generations are quarantined with the reason."""
    values = {"sha256": sha256, "reason": reason}
    connection.execute(sa.text("UPDATE audio SET analysis_reason = :reason WHERE sha256 = :sha256"), values)
    connection.execute(
        sa.text(
            "UPDATE generations SET status = 'quarantined', status_reason = :reason, updated_at = now()"
            f" WHERE audio_sha256 = :sha256 AND {LIVING}"
        ),
        values,
    )


def stored_parts(ledger: Ledger, sha256: str) -> dict[str, dict[str, Any]]:
    """Parts of a file's analysis by name, each with `version, status, reason, values, cpu_s`."""
    columns = analyses.c
    query = sa.select(columns.part, columns.version, columns.status, columns.reason, columns.result, columns.cpu_s)
    with ledger.begin() as connection:
        rows = connection.execute(query.where(columns.audio_sha256 == sha256)).all()
    names = ("version", "status", "reason", "values", "cpu_s")
    return {part: dict(zip(names, values, strict=True)) for part, *values in rows}
