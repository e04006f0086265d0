"""What providers say they made, against what was saved: a generation that was announced and never came is missing metadata.

Belongs here: rows of `expected_generations`. Does not: sending the alert (`capture/missing.py`).
"""

from collections.abc import Iterable
from typing import NamedTuple

import sqlalchemy as sa

from keeptake.ledger.connection import Ledger

TICKS_TO_ALERT = 2  # a save may be on its way while its announcement is already here

_MISSING = "NOT EXISTS (SELECT FROM generations g WHERE g.generation_id = e.generation_id)"

# In the order of the ids: two calls with the same ones in other orders waited for each other until one was broken off.
ANNOUNCE = f"""
    WITH announced AS (
        INSERT INTO expected_generations (provider, generation_id) SELECT %s, unnest(%s::text[]) ORDER BY 2
        ON CONFLICT DO NOTHING RETURNING generation_id
    ),
    e AS (SELECT DISTINCT unnest(%s::text[]) AS generation_id)
    SELECT (SELECT count(*) FROM announced), (SELECT count(*) FROM e WHERE {_MISSING})
"""
COUNT_MISSING = f"SELECT provider, count(*) FROM expected_generations e WHERE {_MISSING} GROUP BY 1 ORDER BY 1"


class Missing(NamedTuple):
    """A generation that was announced and is not in the ledger."""

    provider: str
    generation_id: str


def missing_by_provider(ledger: Ledger) -> dict[str, int]:
    """How many announced generations were never saved."""
    with ledger.begin() as connection:
        return {row[0]: row[1] for row in connection.execute(sa.text(COUNT_MISSING))}


def tick_missing(ledger: Ledger) -> list[Missing]:
    """Count one more look at every missing generation; return those due for an alert that none was sent for yet.

    Announcements that were kept are forgotten on the way.
    """
    kept = f"DELETE FROM expected_generations e WHERE NOT {_MISSING}"
    is_due = "seen_missing >= :ticks AND alerted_at IS NULL"
    due = f"SELECT provider, generation_id FROM expected_generations WHERE {is_due} ORDER BY 1, 2"
    with ledger.begin() as connection:
        connection.execute(sa.text(kept))
        connection.execute(sa.text("UPDATE expected_generations SET seen_missing = seen_missing + 1 WHERE alerted_at IS NULL"))
        return [Missing(*row) for row in connection.execute(sa.text(due), {"ticks": TICKS_TO_ALERT})]


def mark_alerted(ledger: Ledger, missing: Iterable[Missing]) -> None:
    """Remember that people were told, so that they are told once."""
    rows = [{"provider": item.provider, "id": item.generation_id} for item in missing]
    statement = "UPDATE expected_generations SET alerted_at = now() WHERE provider = :provider AND generation_id = :id"
    if rows:
        with ledger.begin() as connection:
            connection.execute(sa.text(statement), rows)
