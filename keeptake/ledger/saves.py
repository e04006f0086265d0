"""Generations and feedback as the service stores them: each call one statement, and with it one transaction and round trip.

A save takes its rows as one JSON text: one plan whatever fields are absent, and the same statement for one row and a thousand.
Placeholders are psycopg's. Belongs here: the statements behind a save and a feedback call. Does not: what makes a record
believable (`records.py`), imports from sources (`generations.py`).
"""

import json
from collections.abc import Iterable
from typing import Any

from keeptake.curation.quality import HEARD
from keeptake.ledger.living import LIVING
from keeptake.records import FEEDBACK, Accepted, identity

SOURCE = "api"
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode

_GIVEN = {
    "generation_id": "text",
    "user_id": "text",
    "user_prompt": "text",
    "ai_enhanced_prompt": "text",
    "generation_params": "jsonb",
    "audio_url": "text",
    "audio_storage_key": "text",
    "duration_s": "float8",
    "format": "text",
    "provider": "text",
    "model_used": "text",
    "generation_cost": "float8",
    "generation_duration_s": "float8",
    "analysis_metadata": "jsonb",
    "spectral_features": "jsonb",
    "audio_embedding": "real[]",
    "extra": "jsonb",
}
_FEEDBACK_TYPES = {"liked": "boolean", "rating": "smallint", "feedback": "text", "used": "boolean"}
_COPIED = {**_GIVEN, "flags": "text[]", **_FEEDBACK_TYPES}
_READ = ", ".join(
    f"{name} {kind}" for name, kind in {**_COPIED, "identity": "text", "said": "jsonb", "created_at": "timestamptz"}.items()
)

# Parameters: the rows as JSON, the actor. What is missing from the answer was known before: see `KNOWN`.
SAVE = f"""
    WITH given AS MATERIALIZED (SELECT * FROM json_to_recordset(%s::json) AS given ({_READ})),
    saved AS (
        INSERT INTO generations ({", ".join(_COPIED)}, identity_sha256, source, captured_on, created_at, feedback_revision,
            feedback_at)
        SELECT {", ".join(_COPIED)}, decode(identity, 'hex'), '{SOURCE}', (now() AT TIME ZONE 'UTC')::date,
            coalesce(created_at, now()), CASE WHEN said IS NULL THEN 0 ELSE 1 END, CASE WHEN said IS NULL THEN NULL ELSE now() END
        FROM given
        ORDER BY generation_id  -- one order, so that two batches with the same records cannot wait for each other in a ring
        ON CONFLICT (generation_id) DO NOTHING
        RETURNING id, generation_id, status
    ),
    history AS (
        INSERT INTO feedback_history (generation, revision, changes, actor)
        SELECT saved.id, 1, given.said, %s FROM saved JOIN given USING (generation_id) WHERE given.said IS NOT NULL
    )
    SELECT generation_id, id, status FROM saved
"""
KNOWN = f"""
    SELECT generation_id, id, status, identity_sha256, {", ".join(FEEDBACK)} FROM generations WHERE generation_id = ANY(%s)
"""

# What one actor ever said of a generation: a repeated save says nothing new, even where others have spoken since.
SAID = """
    SELECT jsonb_object_agg(field, value ORDER BY revision)
    FROM feedback_history, jsonb_each(changes) AS _(field, value) WHERE generation = %s AND actor = %s
"""

# The update waits for whoever holds the row and then sees what they left: concurrent calls merge in the order of their revisions.
_MERGED = ", ".join(
    f"{name} = CASE WHEN given.changes ? '{name}' THEN (given.changes ->> '{name}')::{kind} ELSE g.{name} END"
    for name, kind in _FEEDBACK_TYPES.items()
)
# Parameters: the changes as JSON, the generation's id, the actor. No row: no such generation.
GIVE_FEEDBACK = f"""
    WITH given AS (SELECT %s::jsonb AS changes),
    changed AS (
        UPDATE generations g
        SET {_MERGED}, feedback_revision = g.feedback_revision + 1, feedback_at = now(), updated_at = now()
        FROM given WHERE g.generation_id = %s AND {LIVING}
        RETURNING g.id, g.feedback_revision, g.audio_sha256, {", ".join(f"g.{name}" for name in FEEDBACK)}
    ),
    history AS (
        INSERT INTO feedback_history (generation, revision, changes, actor)
        SELECT changed.id, changed.feedback_revision, given.changes, %s FROM changed, given
    )
    SELECT {", ".join(f"changed.{name}" for name in FEEDBACK)}, f.audio_sha256 IS NOT NULL AS is_heard,
        {", ".join(f"f.{name}" for name in HEARD)}
    FROM changed LEFT JOIN features f ON f.audio_sha256 = changed.audio_sha256
"""


def save_rows(accepted: Iterable[tuple[Accepted, bytes]]) -> str:
    """Rows of `SAVE` as JSON text, of records and their identities."""
    return json_text([_row(record, identity_sha256) for record, identity_sha256 in accepted])


def _row(accepted: Accepted, identity_sha256: bytes) -> dict[str, Any]:
    generation = accepted.generation
    row = {name: getattr(generation, name) for name in _GIVEN}
    row["identity"] = identity_sha256.hex()
    row["flags"] = [flag.value for flag in accepted.flags]
    if generation.created_at is not None:
        row["created_at"] = generation.created_at.isoformat()
    said = accepted.feedback.given() if accepted.feedback else {}
    return row | said | {"said": said} if said else row


def identified(records: Iterable[Accepted]) -> list[tuple[Accepted, bytes]]:
    """Records with the hash that tells repeats from conflicts."""
    return [(record, identity(record.generation)) for record in records]


def json_text(value: object) -> str:
    """JSON as Postgres takes it."""
    return _encode(value)
