"""How far everything has come, in counts: what `keeptake status`, sensors and checks ask.

Belongs here: read-only counts over generations. Does not: the public statistics of the API.
"""

from collections.abc import Generator
from typing import Any

import sqlalchemy as sa

from keeptake.ledger.connection import Ledger
from keeptake.ledger.living import LIVING

_PENDING = f"(status NOT IN ('scored', 'quarantined') OR audio_status = 'retrying') AND {LIVING}"


def status(ledger: Ledger) -> dict[str, Any]:
    """Counts of the whole ledger, as `keeptake status --json` prints them."""
    with ledger.begin() as connection:

        def counts(query: str) -> dict[str, int]:
            return {str(row[0]): int(row[1]) for row in connection.execute(sa.text(query))}

        def count(query: str) -> int:
            return int(connection.scalar(sa.text(query)) or 0)

        return {
            "generations": count("SELECT count(*) FROM generations"),
            "refused": counts("SELECT reason, count(*) FROM refusals GROUP BY 1 ORDER BY 1"),
            "audio": counts("SELECT audio_status, count(*) FROM generations GROUP BY 1 ORDER BY 1"),
            "audio_reasons": counts(
                "SELECT audio_reason, count(*) FROM generations WHERE audio_reason IS NOT NULL AND audio_status <> 'stored'"
                " GROUP BY 1 ORDER BY 1"
            ),
            "analyzed": count("SELECT count(*) FROM generations JOIN features USING (audio_sha256)"),
            "embedded": count(
                "SELECT count(*) FROM generations g WHERE EXISTS (SELECT FROM embeddings e WHERE e.audio_sha256 = g.audio_sha256)"
            ),
            "scored": count("SELECT count(*) FROM generations WHERE quality_score IS NOT NULL"),
        }


def takes_by_day(ledger: Ledger, *, days: int) -> list[int]:
    """Generations by capture day, one count a day, oldest first, today's last."""
    query = sa.text(
        "SELECT count(g.id) FROM generate_series(0, :days - 1) ago"
        " LEFT JOIN generations g ON g.captured_on = (now() AT TIME ZONE 'UTC')::date - ago::int GROUP BY ago ORDER BY ago DESC"
    )
    with ledger.begin() as connection:
        return [int(row[0]) for row in connection.execute(query, {"days": days})]


def scores_by_tenth(ledger: Ledger) -> list[int]:
    """Scored generations by tenths of the unit interval, lowest first; 1 belongs to the last."""
    query = sa.text(
        "SELECT least(floor(quality_score * 10)::int, 9), count(*) FROM generations WHERE quality_score >= 0 GROUP BY 1"
    )
    with ledger.begin() as connection:
        found = {int(row[0]): int(row[1]) for row in connection.execute(query)}
    return [found.get(tenth, 0) for tenth in range(10)]


def status_rows(ledger: Ledger) -> Generator[dict[str, Any]]:
    """One mapping a generation, in order of arrival."""
    query = sa.text("SELECT generation_id, status, audio_status, audio_reason, quality_score FROM generations ORDER BY id")
    with ledger.engine.connect() as connection:
        for row in connection.execution_options(yield_per=5000).execute(query):
            yield dict(row._mapping)


def refused(ledger: Ledger) -> Generator[dict[str, Any]]:
    """One mapping a refusal, in order of arrival."""
    query = sa.text("SELECT source, line, generation_id, reason, detail FROM refusals ORDER BY refused_at, source, line, id")
    with ledger.engine.connect() as connection:
        for row in connection.execution_options(yield_per=5000).execute(query):
            yield dict(row._mapping)


def pending_by_day(ledger: Ledger, *, most: int = 1000) -> dict[str, int]:
    """Capture days with rows that can be worked on now, and how many, the newest days; a retry counts once its time has come."""
    query = sa.text(
        f"SELECT captured_on::text, count(*) FROM generations WHERE {_PENDING}"
        " AND (audio_status <> 'retrying' OR audio_next_attempt_at <= now()) GROUP BY 1 ORDER BY 1 DESC LIMIT :most"
    )
    with ledger.begin() as connection:
        return {str(row[0]): int(row[1]) for row in connection.execute(query, {"most": most})}


def day_counts(ledger: Ledger, day: str) -> dict[str, int]:
    """Generations of a capture day by status."""
    query = sa.text("SELECT status, count(*) FROM generations WHERE captured_on = :day GROUP BY 1 ORDER BY 1")
    with ledger.begin() as connection:
        return {str(row[0]): int(row[1]) for row in connection.execute(query, {"day": day})}


def days_with_failures(ledger: Ledger) -> dict[str, dict[str, int]]:
    """Capture days on which rows failed for good, with their counts by reason."""
    query = sa.text(
        "SELECT captured_on::text, coalesce(audio_reason, status_reason, 'unknown'), count(*) FROM generations"
        f" WHERE status = 'quarantined' AND {LIVING} GROUP BY 1, 2 ORDER BY 1, 2"
    )
    days: dict[str, dict[str, int]] = {}
    with ledger.begin() as connection:
        for day, reason, rows in connection.execute(query):
            days.setdefault(day, {})[reason] = rows
    return days


def good_takes(ledger: Ledger, formula: str, min_score: float) -> int:
    """Takes whose total by a formula reaches a score."""
    query = sa.text(
        "SELECT count(*) FROM quality_scores q JOIN generations g ON g.id = q.generation"
        f" WHERE formula = :formula AND total >= :least AND {LIVING}"
    )
    with ledger.begin() as connection:
        return int(connection.scalar(query, {"formula": formula, "least": min_score}) or 0)
