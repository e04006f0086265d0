"""Single records and pages of them, with what was heard in their audio, and what the routes of audio ask of one.

Belongs here: SQL behind the reading routes. Does not: the shape that is shown (`records.public_record`).
"""

from keeptake.embedding import DEFAULT_MODEL
from keeptake.ledger.living import LIVING

_SHOWN = (
    "id",
    *("generation_id", "user_id", "user_prompt", "ai_enhanced_prompt", "generation_params", "audio_url", "audio_storage_key"),
    *("duration_s", "format", "provider", "model_used", "generation_cost", "generation_duration_s", "extra", "flags"),
    *("created_at", "updated_at", "status", "status_reason", "audio_status", "audio_reason", "audio_sha256"),
    *("liked", "rating", "feedback", "used"),
    *("quality_score", "used_for_training", "dataset_version", "training_epoch"),
)
_CLAIMED = ("analysis_metadata", "spectral_features", "audio_embedding")
_HEARD = "to_jsonb(a) - 'measures' AS audio, to_jsonb(f) AS features"
_JOINED = """
    FROM generations g
    LEFT JOIN audio a ON a.sha256 = g.audio_sha256
    LEFT JOIN features f ON f.audio_sha256 = g.audio_sha256
"""


def _columns(names: tuple[str, ...]) -> str:
    return ", ".join(f"g.{name}" for name in names)


RECORD = f"""
    SELECT {_columns((*_SHOWN, *_CLAIMED))}, {_HEARD},
        (SELECT s.result -> 'mfcc_mean' FROM analyses s WHERE s.audio_sha256 = g.audio_sha256 AND s.part = 'spectrum')
            AS mfcc_mean,
        (SELECT s.result -> 'chroma' FROM analyses s WHERE s.audio_sha256 = g.audio_sha256 AND s.part = 'tonal') AS chroma,
        (SELECT e.vector FROM embeddings e WHERE e.audio_sha256 = g.audio_sha256 AND e.model = '{DEFAULT_MODEL}'
            ORDER BY e.embedded_at DESC LIMIT 1) AS embedding
    {_JOINED} WHERE g.generation_id = %s AND {LIVING}
"""

AUDIO = f"""
    SELECT a.sha256, a.size_bytes, a.format FROM generations g LEFT JOIN audio a ON a.sha256 = g.audio_sha256
    WHERE g.generation_id = %s AND {LIVING}
"""
CLAIMED_AUDIO = f"SELECT id, audio_sha256, format, duration_s FROM generations WHERE generation_id = %s AND {LIVING}"
STANDING = f"SELECT status, coalesce(audio_reason, status_reason) FROM generations WHERE generation_id = %s AND {LIVING}"
PLACED_MODELS = "SELECT DISTINCT model FROM embedding_scalers WHERE is_current"

FILTERS = {"provider": "g.provider = %s", "status": "g.status = %s", "userId": "g.user_id = %s"}


def page_query(filters: tuple[str, ...], *, is_continued: bool) -> str:
    """Page of records, newest first; parameters: the filters' values, then (createdAt, id) to continue after, then the limit."""
    conditions = [LIVING, *(FILTERS[name] for name in filters)]
    if is_continued:
        conditions.append("(g.created_at, g.id) < (%s, %s)")
    return (
        f"SELECT {_columns(_SHOWN)}, {_HEARD} {_JOINED} WHERE {' AND '.join(conditions)}"
        " ORDER BY g.created_at DESC, g.id DESC LIMIT %s"
    )
