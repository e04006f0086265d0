"""What curation asks of the ledger, and what publication writes into it.

Conventions: bulk reads come as Polars frames through Arrow; what a policy says of a take lives in `selections`, what was
published in `dataset_versions` and `dataset_rows`. Belongs here: the SQL. Does not: choosing (`keeptake/curation/`), files.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import sqlalchemy as sa

from keeptake.curation.groups import prompt_key
from keeptake.curation.quality import FORMULAS
from keeptake.curation.select import CANDIDATE, PAIRS, Selection
from keeptake.curation.splits import PREVIOUS
from keeptake.embedding import DEFAULT_MODEL
from keeptake.errors import ConfigurationError
from keeptake.ledger.bulk import upsert
from keeptake.ledger.connection import Ledger
from keeptake.ledger.tables import dataset_rows, dataset_versions, generations, selections

_FILE_ID = "left(encode(sha256(convert_to({id}, 'UTF8')), 'hex'), 16)"  # `records.file_id`, a million at a time
_PROMPT = "coalesce(nullif(g.ai_enhanced_prompt, ''), g.user_prompt)"
_GENRE = "lower(coalesce(f.genre, nullif(g.generation_params->>'genre', '')))"

_CANDIDATES = f"""
SELECT g.id AS generation, g.generation_id, {_FILE_ID.format(id="g.generation_id")} AS file_id, g.user_id, g.provider,
       g.user_prompt AS prompt, {_GENRE} AS genre,
       CASE WHEN g.audio_status = 'stored' THEN g.audio_sha256 END AS audio_sha256,
       coalesce(g.audio_reason, g.audio_status) AS audio_reason,
       coalesce(f.duration_s, a.duration_s) AS duration_s, f.audio_sha256 IS NOT NULL AS is_heard,
       f.has_vocals, f.has_clipping, f.is_silent, f.has_dc_offset, f.is_antiphase, f.is_one_sided, f.has_abrupt_start,
       f.has_abrupt_end, q.total AS score, ad.total AS adherence, g.liked, g.rating, g.used, g.has_consent,
       g.erased_at IS NOT NULL AS is_erased
FROM generations g
LEFT JOIN audio a ON a.sha256 = g.audio_sha256
LEFT JOIN features f ON f.audio_sha256 = g.audio_sha256
LEFT JOIN quality_scores q ON q.generation = g.id AND q.formula = '{{formula}}'
LEFT JOIN adherence ad ON ad.generation = g.id
"""

_KEPT = f"""
SELECT g.id AS generation, g.generation_id, {_FILE_ID.format(id="g.generation_id")} AS file_id, s.split, s.group_id, g.user_id,
       g.user_prompt, g.ai_enhanced_prompt, {_PROMPT} AS prompt, g.generation_params::text AS generation_params, g.audio_url,
       g.provider, g.model_used, g.created_at, g.liked, g.rating, g.used, g.quality_score AS seed_score,
       q.total AS quality_score, ad.total AS adherence, g.audio_sha256, a.sample_rate_hz, a.channels,
       coalesce(f.duration_s, a.duration_s) AS duration_s, g.duration_s AS claimed_duration_s, f.tempo_bpm, f.tempo_confidence,
       f.beats_per_bar, f.key, f.key_confidence, f.loudness_lufs, f.has_vocals, f.vocals_probability, f.genre AS heard_genre,
       f.mood, {_GENRE} AS genre, f.versions AS features_versions,
       f.spectral_centroid_hz, f.onset_rate_hz
FROM selections s
JOIN generations g ON g.id = s.generation
JOIN audio a ON a.sha256 = g.audio_sha256
LEFT JOIN features f ON f.audio_sha256 = g.audio_sha256
LEFT JOIN quality_scores q ON q.generation = g.id AND q.formula = '{{formula}}'
LEFT JOIN adherence ad ON ad.generation = g.id
WHERE s.policy = '{{policy}}' AND s.is_kept
ORDER BY g.generation_id COLLATE "C"
"""

_HEARD = """
SELECT audio_sha256, part, result FROM analyses
WHERE audio_sha256 = ANY(:files) AND part IN ('rhythm', 'structure', 'style', 'vocals') AND status = 'ok'
"""

_PREVIOUS = f"""
SELECT DISTINCT g.id AS generation, {_FILE_ID.format(id="r.generation_id")} AS file_id, r.audio_sha256,
       g.user_prompt AS prompt, g.user_id, g.provider, r.split
FROM dataset_rows r
JOIN dataset_versions v ON v.id = r.dataset
JOIN generations g ON g.generation_id = r.generation_id
WHERE v.name = '{{name}}' AND v.published_at IS NOT NULL
"""


def candidates(ledger: Ledger, formula: str) -> pl.DataFrame:
    """Every take of the ledger with what rules ask of it, columns as in `select.CANDIDATE`."""
    if formula not in FORMULAS:
        raise ConfigurationError(f"no quality formula {formula!r}: there are {', '.join(FORMULAS)}")
    takes = ledger.arrow(_CANDIDATES.format(formula=formula))
    return takes.with_columns(prompt_key=prompt_key(pl.col("prompt"))).select([pl.col(c).cast(t) for c, t in CANDIDATE.items()])


def duplicate_audio(ledger: Ledger) -> pl.DataFrame:
    """Pairs of audio files that are duplicates; a medley and what it holds excerpts of are none."""
    return _pairs(ledger, "evidence->>'relation' = 'duplicate'")


def excerpt_audio(ledger: Ledger) -> pl.DataFrame:
    """Pairs of audio files that share a part: a medley or a full song, and what it holds."""
    return _pairs(ledger, "evidence->>'relation' = 'excerpt'")


def _pairs(ledger: Ledger, condition: str) -> pl.DataFrame:
    found = ledger.arrow(f"SELECT DISTINCT first_sha256, second_sha256 FROM duplicate_pairs WHERE {condition}")
    return found.select([pl.col(column).cast(kind) for column, kind in PAIRS.items()])


def published_rows(ledger: Ledger, name: str) -> pl.DataFrame:
    """Every take ever published under a name and its split, columns as in `splits.PREVIOUS`."""
    rows = ledger.arrow(_PREVIOUS.format(name=_plain(name))).with_columns(prompt_key=prompt_key(pl.col("prompt")))
    return rows.select([pl.col(column).cast(kind) for column, kind in PREVIOUS.items()])


def save_selection(ledger: Ledger, policy: str, selection: Selection) -> None:
    """Store what a policy says of every take and since when; rows that say the same as before stay untouched."""
    kept = selection.kept.select("generation", "split", "group_id", is_kept=pl.lit(True))
    out = selection.left_out.select("generation", "reason", "detail", is_kept=pl.lit(False))
    rows = pl.concat([kept, out], how="diagonal").with_columns(policy=pl.lit(policy))
    same = ("is_kept", "reason", "detail", "split", "group_id")
    changed = " OR ".join(f"selections.{column} IS DISTINCT FROM excluded.{column}" for column in same)
    with ledger.begin() as connection:
        rows = rows.with_columns(decided_at=pl.lit(_now(connection)))
        upsert(connection, selections, rows.iter_rows(named=True), conflict=["policy", "generation"], where=changed)


def leave_out(ledger: Ledger, policy: str, generation_ids: Sequence[str], reason: str, detail: str) -> None:
    """Note that takes which passed every rule cannot be published after all."""
    of_takes = selections.c.generation.in_(sa.select(generations.c.id).where(generations.c.generation_id.in_(generation_ids)))
    changed = sa.update(selections).where(selections.c.policy == policy, of_takes)
    said = {"is_kept": False, "reason": reason, "detail": detail, "split": None, "group_id": None, "decided_at": sa.func.now()}
    with ledger.begin() as connection:
        connection.execute(changed.values(said))


def kept_takes(ledger: Ledger, policy: str, formula: str) -> pl.DataFrame:
    """Everything that publication writes of the takes that a policy keeps, sorted by generation id."""
    return ledger.arrow(_KEPT.format(policy=_plain(policy), formula=formula))


def kept_by_genre(ledger: Ledger, policy: str) -> dict[str, int]:
    """Takes that a policy keeps, by genre."""
    counted = ledger.arrow(
        f"SELECT coalesce({_GENRE}, 'unknown') AS genre, count(*) AS takes "
        "FROM selections s JOIN generations g ON g.id = s.generation "
        f"LEFT JOIN features f ON f.audio_sha256 = g.audio_sha256 WHERE s.policy = '{_plain(policy)}' AND s.is_kept "
        "GROUP BY 1 ORDER BY 2 DESC, 1"
    )
    return dict(counted.iter_rows())


def heard_over_time(ledger: Ledger, files: Sequence[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """Beats, sections and tags of audio files: hash → part → its values."""
    heard: dict[str, dict[str, dict[str, Any]]] = {}
    with ledger.begin() as connection:
        for sha256, part, result in connection.execute(sa.text(_HEARD), {"files": list(files)}):
            heard.setdefault(sha256, {})[part] = result
    return heard


def prompt_keys(ledger: Ledger, policy: str) -> pl.DataFrame:
    """Normalised prompts of the takes that a policy keeps: `generation_id, prompt_key`."""
    query = (
        "SELECT g.generation_id, g.user_prompt AS prompt FROM selections s JOIN generations g ON g.id = s.generation "
        f"WHERE s.policy = '{_plain(policy)}' AND s.is_kept"
    )
    return ledger.arrow(query).select("generation_id", prompt_key=prompt_key(pl.col("prompt")))


def vectors(ledger: Ledger) -> dict[str, np.ndarray]:
    """Vectors of all audio in the default model's space, scaled: hash → vector; empty before there is one.

    How near two takes are is judged in that space alone: it is the one in which the limit was measured.
    """
    found = ledger.arrow(
        "SELECT v.audio_sha256, v.vector::real[] AS vector FROM scaled_embeddings v WHERE v.scaler = (SELECT id FROM"
        f" embedding_scalers WHERE is_current AND model = '{DEFAULT_MODEL}' ORDER BY fitted_at DESC LIMIT 1) ORDER BY 1"
    )
    return {sha256: np.asarray(vector, np.float32) for sha256, vector in found.iter_rows()}


def versions(ledger: Ledger, name: str | None = None) -> list[dict[str, Any]]:
    """Published versions, newest last, of one dataset or of all."""
    query = sa.select(dataset_versions).where(dataset_versions.c.published_at.is_not(None))
    if name is not None:
        query = query.where(dataset_versions.c.name == name)
    with ledger.begin() as connection:
        found = connection.execute(query.order_by(dataset_versions.c.name, dataset_versions.c.ordinal)).mappings()
        return [dict(row) for row in found]


def readings_of(ledger: Ledger, name: str, version: str) -> list[dict[str, Any]]:
    """What each reader said of a version before it became visible; nothing of one that was recorded after a killed run."""
    query = sa.select(dataset_versions.c.lineage["gate"]).where(
        dataset_versions.c.name == name, dataset_versions.c.version == version
    )
    with ledger.begin() as connection:
        return connection.scalar(query) or []


def record_version(ledger: Ledger, version: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> None:
    """Record a version that became visible, its rows, and that their takes were used for training: one transaction."""
    with ledger.begin() as connection:
        upsert(
            connection,
            dataset_versions,
            [{**version, "published_at": version.get("published_at") or _now(connection)}],
            conflict=["name", "version"],
            update=["path", "manifest_sha256", "row_count", "published_at"],
        )
        same = (dataset_versions.c.name == version["name"]) & (dataset_versions.c.version == version["version"])
        dataset = connection.scalar(sa.select(dataset_versions.c.id).where(same))
        upsert(connection, dataset_rows, ({"dataset": dataset, **row} for row in rows), conflict=["dataset", "row_id"])
        used = sa.select(dataset_rows.c.generation_id).where(dataset_rows.c.dataset == dataset)
        label = f"{version['name']}/{version['version']}"
        connection.execute(
            sa.update(generations)
            .where(generations.c.generation_id.in_(used), generations.c.dataset_version.is_distinct_from(label))
            .values(used_for_training=True, dataset_version=label, updated_at=sa.func.now())
        )


def versions_that_hold(ledger: Ledger, generation_id: str) -> list[dict[str, Any]]:
    """Published versions with a row made from a take: name, version, split, row_id, path. What erasure has to visit."""
    query = (
        sa.select(
            dataset_versions.c.name,
            dataset_versions.c.version,
            dataset_versions.c.path,
            dataset_rows.c.split,
            dataset_rows.c.row_id,
        )
        .join(dataset_rows, dataset_rows.c.dataset == dataset_versions.c.id)
        .where(dataset_rows.c.generation_id == generation_id, dataset_versions.c.published_at.is_not(None))
        .order_by(dataset_versions.c.name, dataset_versions.c.ordinal, dataset_rows.c.row_id)
    )
    with ledger.begin() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def _now(connection: sa.Connection) -> Any:  # noqa: ANN401 -- a datetime
    return connection.scalar(sa.select(sa.func.now()))


def _plain(name: str) -> str:
    if not name.replace("-", "").replace("_", "").isalnum():
        raise ConfigurationError(f"no dataset can be named {name!r}: a name has 1 to 64 of a-z 0-9 -")
    return name
