"""Many generations into the ledger at once: new, replayed or in conflict, with their feedback; and the refused ones.

Conventions: records of one batch are judged in their order; the first of a `generationId` counts, as it does for the ledger. A
source that repeats itself says nothing new: its feedback is an update only where it differs from what that same source said last.

Belongs here: arrivals in bulk. Does not: one record or one feedback at a time (`saves.py`), what makes a record believable
(`records.py`).
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from keeptake.json_values import JSON
from keeptake.ledger.bulk import staged, upsert
from keeptake.ledger.living import LIVING
from keeptake.ledger.tables import generations, refusals, source_cursors
from keeptake.records import FEEDBACK, Accepted, identity

MAX_RAW_BYTES = 1 << 16


class Outcome(StrEnum):
    """What became of an accepted record."""

    NEW = "new"
    REPLAYED = "replayed"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A record that was not accepted, kept as it came."""

    source: str
    line: int | None
    generation_id: str | None
    reason: str
    detail: str  # for a person: what was found and what would be accepted
    raw: bytes


def accept(
    connection: sa.Connection, batch: Sequence[Accepted], *, source: str, audio_root: str | None = None
) -> tuple[list[Outcome], int]:
    """Store believed records, all in the open transaction.

    Parameters
    ----------
    batch : sequence of Accepted
        In the order in which they came.
    source : str
        Where they came from; also who gave their feedback.
    audio_root : str, optional
        Folder under which their relative audio URLs are resolved.

    Returns
    -------
    (outcomes, feedback_updates) : tuple of list of Outcome and int
        An outcome a record, and how many known generations got newer feedback.
    """
    identities = [identity(accepted.generation) for accepted in batch]
    first: dict[str, int] = {}
    for index, accepted in enumerate(batch):
        first.setdefault(accepted.generation.generation_id, index)
    new = _insert(connection, [_row(batch[index], identities[index], source, audio_root) for index in first.values()])
    known = _identities(connection, first.keys())
    outcomes = []
    for index, accepted in enumerate(batch):
        name = accepted.generation.generation_id
        if name in new and first[name] == index:
            outcomes.append(Outcome.NEW)
        else:
            outcomes.append(Outcome.REPLAYED if known[name] == identities[index] else Outcome.CONFLICT)
    repeated = [accepted for accepted, outcome in zip(batch, outcomes, strict=True) if outcome is Outcome.REPLAYED]
    return outcomes, _update_feedback(connection, repeated, actor=source)


def refuse(connection: sa.Connection, refused: Iterable[Refusal]) -> int:
    """Keep refused records, each line of a source once; returns how many were not there before."""
    rows = [
        {
            "source": refusal.source,
            "line": refusal.line,
            "line_sha256": hashlib.sha256(refusal.raw).digest(),
            "generation_id": refusal.generation_id,
            "reason": refusal.reason,
            "detail": refusal.detail,
            "raw": refusal.raw[:MAX_RAW_BYTES],
        }
        for refusal in refused
    ]
    rows.reverse()  # of equal lines the upsert takes the last, and the first is the one to point at
    return upsert(connection, refusals, rows, conflict=["source", "line_sha256"], update=[])


def cursor_of(connection: sa.Connection, source: str) -> JSON | None:
    """Where reading a source goes on; None where it was never read."""
    return connection.scalar(sa.select(source_cursors.c.cursor).where(source_cursors.c.source == source))


def move_cursor(connection: sa.Connection, source: str, cursor: JSON) -> None:
    """Remember where reading a source goes on, in the transaction of what was read."""
    moved = {"source": source, "cursor": cursor, "moved_at": datetime.now(UTC)}
    upsert(connection, source_cursors, [moved], conflict=["source"])


def _row(accepted: Accepted, identity_sha256: bytes, source: str, audio_root: str | None) -> dict[str, Any]:
    generation, feedback, now = accepted.generation, accepted.feedback, datetime.now(UTC)
    captured = {name: getattr(generation, name) for name in generation.__slots__}
    said = {name: getattr(feedback, name, None) for name in FEEDBACK}
    return {
        **captured,
        **said,
        "identity_sha256": identity_sha256,
        "flags": [flag.value for flag in accepted.flags],
        "created_at": generation.created_at or now,
        "captured_on": now.date(),
        "source": source,
        "audio_root": audio_root,
        "feedback_revision": 1 if feedback else 0,
        "feedback_at": now if feedback else None,
    }


def _insert(connection: sa.Connection, rows: list[dict[str, Any]]) -> set[str]:
    """Insert the rows that are not known, and the first entry of their feedback's history; returns their names."""
    if not rows:
        return set()
    names = ", ".join(f'"{name}"' for name in rows[0])
    with staged(connection, generations, rows) as table:
        inserted = connection.execute(
            # In one order, so that two batches with the same records wait for each other instead of dying in a deadlock.
            sa.text(
                f"INSERT INTO generations ({names}) SELECT {names} FROM {table} ORDER BY generation_id "
                "ON CONFLICT (generation_id) DO NOTHING "
                f"RETURNING id, generation_id, source, feedback_revision, {', '.join(FEEDBACK)}"
            )
        ).all()
    history = [
        {"generation": row.id, "revision": 1, "changes": json.dumps(_said(row)), "actor": row.source}
        for row in inserted
        if row.feedback_revision
    ]
    _append_history(connection, history)
    return {row.generation_id for row in inserted}


def _identities(connection: sa.Connection, names: Iterable[str]) -> dict[str, bytes]:
    query = sa.text("SELECT generation_id, identity_sha256 FROM generations WHERE generation_id = ANY(:names)")
    return {name: bytes(identity_sha256) for name, identity_sha256 in connection.execute(query, {"names": list(names)})}


def _update_feedback(connection: sa.Connection, repeated: Sequence[Accepted], *, actor: str) -> int:
    """Merge what a source says newly about known generations; returns how many records said something new."""
    saying = [accepted for accepted in repeated if accepted.feedback is not None]
    names = {accepted.generation.generation_id for accepted in saying}
    if not names:
        return 0
    before = _standing(connection, names, actor)
    unlocked = _changes([accepted for accepted in saying if accepted.generation.generation_id in before], before)
    if not unlocked:
        return 0
    # Only rows with news are locked, in one order; what others did meanwhile is seen by looking again.
    standing = _standing(connection, {name for name, _ in unlocked}, actor, is_locking=True)
    changes = _changes([accepted for accepted in saying if accepted.generation.generation_id in standing], standing)
    updates, history = [], []
    for name, change in changes:
        at = standing[name]
        at["revision"] += 1
        at["now"].update(change)
        history.append({"generation": at["id"], "revision": at["revision"], "changes": json.dumps(change), "actor": actor})
    for name in {name for name, _ in changes}:
        at = standing[name]
        updates.append(
            {"id_": at["id"], "revision_": at["revision"], **{f"{field}_": at["now"].get(field) for field in FEEDBACK}}
        )
    if updates:
        connection.execute(_SET_FEEDBACK, updates)
        _append_history(connection, history)
    return len(changes)


def _changes(saying: Sequence[Accepted], standing: dict[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """What each record says that its source had not said before, in order; its first word counts against the present value."""
    said = {name: {**at["now"], **at["said"]} for name, at in standing.items()}
    changes = []
    for accepted in saying:
        name, given = accepted.generation.generation_id, accepted.feedback.given() if accepted.feedback else {}
        change = {field: value for field, value in given.items() if said[name].get(field) != value}
        if change:
            said[name].update(change)
            changes.append((name, change))
    return changes


def _standing(
    connection: sa.Connection, names: Iterable[str], actor: str, *, is_locking: bool = False
) -> dict[str, dict[str, Any]]:
    """Feedback as it stands, and all that an actor ever said about it, by generation; of an erased one nothing."""
    lock = "ORDER BY id FOR UPDATE" if is_locking else ""
    rows = connection.execute(
        sa.text(
            f"SELECT id, generation_id, feedback_revision, {', '.join(FEEDBACK)} FROM generations "
            f"WHERE generation_id = ANY(:names) AND {LIVING} {lock}"
        ),
        {"names": list(names)},
    ).all()
    said = connection.execute(
        sa.text(
            "SELECT generation, jsonb_object_agg(field, value ORDER BY revision) AS fields "
            "FROM feedback_history, jsonb_each(changes) AS _(field, value) "
            "WHERE generation = ANY(:ids) AND actor = :actor GROUP BY generation"
        ),
        {"ids": [row.id for row in rows], "actor": actor},
    )
    by_id: dict[int, JSON] = {row.generation: row.fields for row in said}
    return {
        row.generation_id: {"id": row.id, "revision": row.feedback_revision, "now": _said(row), "said": by_id.get(row.id, {})}
        for row in rows
    }


def _said(row: sa.Row[Any]) -> dict[str, Any]:
    return {field: getattr(row, field) for field in FEEDBACK if getattr(row, field) is not None}


def _append_history(connection: sa.Connection, history: list[dict[str, Any]]) -> None:
    if history:
        connection.execute(_APPEND, history)


_SET_FEEDBACK = sa.text(
    f"UPDATE generations SET {', '.join(f'{field} = :{field}_' for field in FEEDBACK)}, feedback_revision = :revision_, "
    "feedback_at = now(), updated_at = now() WHERE id = :id_"
)
_APPEND = sa.text(
    "INSERT INTO feedback_history (generation, revision, changes, actor) "
    "VALUES (:generation, :revision, CAST(:changes AS jsonb), :actor)"
)
