"""Raw vectors in the ledger: which heard files of a day wait to be placed, and where they were placed.

Belongs here: SQL of `embeddings` as the graph's stage needs it. Does not: scalers, indexes and search (`embeddings.py`,
`similarity.py`).
"""

import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import sqlalchemy as sa

from keeptake.ledger.bulk import upsert
from keeptake.ledger.connection import Ledger
from keeptake.ledger.living import LIVING
from keeptake.ledger.tables import embeddings


class ToEmbed(NamedTuple):
    """An audio file that waits to be placed."""

    sha256: str


class PromptToEmbed(NamedTuple):
    """What a take was asked for with, as its provider was given it."""

    sha256: str
    prompt: str


class Embedded(NamedTuple):
    """An audio file that was placed."""

    sha256: str
    vector: np.ndarray  # shape (dims,), float32, as the model gave it


_HAS_VECTOR = "EXISTS (SELECT FROM embeddings e WHERE e.audio_sha256 = {audio} AND e.model = :model AND e.version = :version)"
_PENDING = f"""
    SELECT DISTINCT a.sha256
    FROM generations g JOIN audio a ON a.sha256 = g.audio_sha256
    WHERE g.captured_on = :day AND g.status IN ('analyzed', 'embedded', 'scored') AND {LIVING}
      AND NOT {_HAS_VECTOR.format(audio="a.sha256")}
    ORDER BY a.sha256
"""
_OUTDATED = f"""
    SELECT g.captured_on::text, count(DISTINCT g.audio_sha256) FROM generations g JOIN audio a ON a.sha256 = g.audio_sha256
    WHERE g.status IN ('embedded', 'scored') AND {LIVING} AND NOT {_HAS_VECTOR.format(audio="g.audio_sha256")}
    GROUP BY 1 ORDER BY 1 DESC LIMIT :most
"""
_PROMPTS = f"""
    SELECT DISTINCT ON (g.audio_sha256) g.audio_sha256, coalesce(nullif(g.ai_enhanced_prompt, ''), g.user_prompt)
    FROM generations g
    WHERE g.captured_on = :day AND g.audio_sha256 IS NOT NULL AND {LIVING}
      AND NOT {_HAS_VECTOR.format(audio="g.audio_sha256")}
    ORDER BY g.audio_sha256, g.id
"""
_ADVANCE = f"""
    WITH moved AS (
        UPDATE generations g SET status = 'embedded', updated_at = now()
        WHERE g.captured_on = :day AND g.status = 'analyzed' AND {LIVING} AND {_HAS_VECTOR.format(audio="g.audio_sha256")}
        RETURNING g.audio_sha256
    )
    SELECT count(DISTINCT audio_sha256) FROM moved
"""


def move_placed_on(ledger: Ledger, day: str, model: str, version: str) -> int:
    """Move generations on whose audio has a vector already, as hearing may have left it, and count these audio files."""
    with ledger.begin() as connection:
        return int(connection.execute(sa.text(_ADVANCE), {"day": day, "model": model, "version": version}).scalar_one())


def outdated_by_day(ledger: Ledger, model: str, version: str, *, most: int = 1000) -> dict[str, int]:
    """Capture days of takes that only another version of the model has placed, newest first, and how many audio files that is."""
    with ledger.begin() as connection:
        rows = connection.execute(sa.text(_OUTDATED), {"model": model, "version": version, "most": most})
        return {str(day): int(count) for day, count in rows}


def audio_to_embed(ledger: Ledger, day: str, model: str, version: str) -> list[ToEmbed]:
    """Heard audio files of a day's generations without a vector."""
    with ledger.begin() as connection:
        return [ToEmbed(*row) for row in connection.execute(sa.text(_PENDING), {"day": day, "model": model, "version": version})]


def prompts_to_embed(ledger: Ledger, day: str, model: str, version: str) -> list[PromptToEmbed]:
    """Prompts of a day's takes whose audio has no vector of them; of takes with the same audio the first one's."""
    with ledger.begin() as connection:
        found = connection.execute(sa.text(_PROMPTS), {"day": day, "model": model, "version": version})
        return [PromptToEmbed(*row) for row in found]


def save_vectors(connection: sa.Connection, embedded: Sequence[Embedded], model: str, version: str) -> None:
    """Store raw vectors."""
    rows = [
        {"audio_sha256": file.sha256, "model": model, "version": version, "vector": _array_text(file.vector)} for file in embedded
    ]
    upsert(connection, embeddings, rows, conflict=("audio_sha256", "model", "version"))


def save_embeddings(connection: sa.Connection, embedded: Sequence[Embedded], model: str, version: str) -> None:
    """Store raw vectors and move the generations on."""
    save_vectors(connection, embedded, model, version)
    connection.execute(
        sa.text(
            "UPDATE generations SET status = 'embedded', updated_at = now()"
            f" WHERE status = 'analyzed' AND audio_sha256 = ANY(:files) AND {LIVING}"
        ),
        {"files": [file.sha256 for file in embedded]},
    )


def _array_text(vector: np.ndarray) -> str:
    """Postgres' text of an array: json is ten times faster at it than the driver's dumper, number by number."""
    return "{" + json.dumps(vector.tolist())[1:-1] + "}"
