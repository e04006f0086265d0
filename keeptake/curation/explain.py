"""The whole story of one take: captured, fetched, heard, judged, kept or left out, published. Belongs here: telling it."""

from typing import Any

import sqlalchemy as sa

from keeptake.errors import ConfigurationError
from keeptake.ledger.connection import Ledger
from keeptake.ledger.datasets import asked_alike, versions_that_hold
from keeptake.ledger.tables import adherence, analyses, audio, duplicate_pairs, features, generations, quality_scores, selections
from keeptake.ledger.unknown import no_such_take
from keeptake.records import file_id, rfc3339

_MOST_RELATIVES = 20


def explain(ledger: Ledger, generation_id: str) -> dict[str, Any]:
    """Tell what became of a take and why.

    Returns
    -------
    dict
        `generation_id, file_id, captured, audio, heard, scores, adherence, duplicates, siblings, decisions, versions`; plain
        JSON.

    Raises
    ------
    ConfigurationError
        If the ledger holds no such take; it names one that reads alike.
    """
    with ledger.begin() as connection:
        take = connection.execute(sa.select(generations).where(generations.c.generation_id == generation_id)).mappings().first()
        if take is None:
            raise ConfigurationError(no_such_take(connection, generation_id))
        sha256, key = take["audio_sha256"], take["id"]
        kept = connection.execute(sa.select(audio).where(audio.c.sha256 == sha256)).mappings().first()
        heard = connection.execute(sa.select(features).where(features.c.audio_sha256 == sha256)).mappings().first()
        parts = connection.execute(
            sa.select(analyses.c.part, analyses.c.version, analyses.c.status, analyses.c.reason)
            .where(analyses.c.audio_sha256 == sha256)
            .order_by(analyses.c.part)
        ).mappings()
        scores = connection.execute(
            sa.select(quality_scores).where(quality_scores.c.generation == key).order_by(quality_scores.c.formula)
        ).mappings()
        judged = connection.execute(sa.select(adherence).where(adherence.c.generation == key)).mappings().first()
        decided = connection.execute(
            sa.select(selections).where(selections.c.generation == key).order_by(selections.c.policy)
        ).mappings()
        story: dict[str, Any] = {
            "generation_id": generation_id,
            "file_id": file_id(generation_id),
            "captured": _captured(take),
            "audio": _audio(take, kept),
            "heard": _heard(heard, [dict(part) for part in parts]),
            "scores": [_score(row) for row in scores],
            "adherence": None if judged is None else {"total": judged["total"], "terms": judged["terms"]},
            "duplicates": _duplicates(connection, sha256, key),
            "siblings": _siblings(ledger, take),
            "decisions": [_decision(row) for row in decided],
        }
    return story | {"versions": versions_that_hold(ledger, generation_id)}


def _captured(take: Any) -> dict[str, Any]:  # noqa: ANN401 -- a row mapping
    return {
        "source": take["source"],
        "provider": take["provider"],
        "captured_on": take["captured_on"].isoformat(),
        "created_at": rfc3339(take["created_at"]),
        "prompt": take["ai_enhanced_prompt"] or take["user_prompt"],
        "asked": take["generation_params"],
        "flags": list(take["flags"]),
        "status": take["status"],
        "status_reason": take["status_reason"],
        "feedback": {name: take[name] for name in ("liked", "rating", "used") if take[name] is not None},
        "used_for_training": take["used_for_training"],
        "dataset_version": take["dataset_version"],
    }


def _audio(take: Any, kept: Any) -> dict[str, Any]:  # noqa: ANN401 -- row mappings
    said = {"status": take["audio_status"], "reason": take["audio_reason"], "attempts": take["audio_attempts"]}
    if kept is None:
        return said | {"detail": take["audio_detail"]}
    measured = ("sha256", "size_bytes", "format", "codec", "duration_s", "sample_rate_hz", "channels")
    return said | {name: kept[name] for name in measured} | {"flags": list(kept["flags"])}


def _heard(heard: Any, parts: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: ANN401 -- a row mapping
    values = {} if heard is None else {name: value for name, value in heard.items() if value is not None}
    values.pop("audio_sha256", None)
    return {"values": values, "parts": parts}


def _score(row: Any) -> dict[str, Any]:  # noqa: ANN401 -- a row mapping
    return {name: row[name] for name in ("formula", "total", "terms", "feedback_revision", "features_versions")}


def _decision(row: Any) -> dict[str, Any]:  # noqa: ANN401 -- a row mapping
    return {name: row[name] for name in ("policy", "is_kept", "reason", "detail", "split", "group_id")}


def _duplicates(connection: sa.Connection, sha256: str | None, key: int) -> list[dict[str, Any]]:
    if sha256 is None:
        return []
    same = sa.select(generations.c.generation_id).where(generations.c.audio_sha256 == sha256, generations.c.id != key)
    found = [{"generation_id": other, "evidence": {"sha256": "the same bytes"}} for other in connection.scalars(same)]
    first, second = duplicate_pairs.c.first_sha256, duplicate_pairs.c.second_sha256
    other_side = sa.case((first == sha256, second), else_=first)
    paired = (
        sa.select(generations.c.generation_id, duplicate_pairs.c.evidence)
        .join(duplicate_pairs, other_side == generations.c.audio_sha256)
        .where((first == sha256) | (second == sha256))
        .order_by(generations.c.generation_id)
        .limit(_MOST_RELATIVES)
    )
    return [*found, *({"generation_id": other, "evidence": evidence} for other, evidence in connection.execute(paired))]


def _siblings(ledger: Ledger, take: Any) -> list[str]:  # noqa: ANN401 -- a row mapping
    alike = asked_alike(ledger, take["user_prompt"], most=_MOST_RELATIVES + 1)  # itself among them
    return [other for other in alike if other != take["generation_id"]][:_MOST_RELATIVES]
