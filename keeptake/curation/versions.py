"""What exactly is a version of a dataset? Its rows, each complete in itself, and the hash that names them.

Conventions: a row is a clip of a take with everything that any format writes of it; rows are sorted by id. A version's name is
`vN-HASH`: its ordinal, and the first digits of the hash over rows, policy and the versions of what makes files of them. The same
rows under the same policy are the same version, whenever they are published.

Belongs here: rows and hashes. Does not: choosing takes (`select.py`), writing files (`building.py`, `formats/`).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from keeptake.curation.captions import (
    CAPTIONS_VERSION,
    clip_tempo_bpm,
    clip_vocal_share,
    heard_caption,
    sure_key,
    sure_tempo_bpm,
    trainer_text,
)
from keeptake.curation.policy import Policy
from keeptake.curation.scrub import SCRUB_VERSION, bare_url, pseudonym, scrub, scrub_values
from keeptake.curation.segments import Clip, clips, section_starts_s
from keeptake.errors import ConfigurationError

ROWS_VERSION = f"rows-2+captions-{CAPTIONS_VERSION}+scrub-{SCRUB_VERSION}"
HASH_DIGITS = 12
FEWEST_VOCALS = 0.1  # share of a clip: below, a breath of voice does not make it a song

ROW: dict[str, Any] = {
    "id": pl.String,
    "split": pl.String,
    "text": pl.String,
    "prompt": pl.String,
    "caption": pl.String,
    "genre": pl.String,
    "mood": pl.String,
    "instruments": pl.List(pl.String),
    "tempo_bpm": pl.Float64,
    "key": pl.String,
    "has_vocals": pl.Boolean,
    "loudness_lufs": pl.Float64,
    "duration_s": pl.Float64,
    "quality_score": pl.Float64,
    "adherence": pl.Float64,
    "liked": pl.Boolean,
    "rating": pl.Int64,
    "used": pl.Boolean,
    "provider": pl.String,
    "model_used": pl.String,
    "licence": pl.String,
    "user": pl.String,
    "generation_id": pl.String,
    "generation_params": pl.String,
    "user_prompt": pl.String,
    "ai_enhanced_prompt": pl.String,
    "audio_url": pl.String,
    "created_at": pl.String,
    "parent": pl.String,
    "start_s": pl.Float64,
    "end_s": pl.Float64,
    "take_duration_s": pl.Float64,
    "take_tempo_bpm": pl.Float64,
    "take_has_vocals": pl.Boolean,
    "claimed_duration_s": pl.Float64,
    "seed_score": pl.Float64,
    "beats_per_bar": pl.Int64,
    "group_id": pl.String,
    "audio_sha256": pl.String,
    "source_sample_rate_hz": pl.Int64,
    "source_channels": pl.Int64,
    "features_versions": pl.String,
}
"""Columns of a row, in the order in which every format writes them."""


def plan_rows(
    takes: pl.DataFrame, heard: Mapping[str, Mapping[str, Mapping[str, Any]]], policy: Policy, *, pseudonym_key: str
) -> tuple[pl.DataFrame, Counter[str]]:
    """Make the rows of a version from the takes that were chosen.

    Parameters
    ----------
    takes : pl.DataFrame
        As `ledger.datasets.kept_takes` gives them.
    heard : Mapping
        Audio hash → part → values: beats, sections, tags and voices over time.
    policy : Policy
        How to cut, and which text a trainer reads.
    pseudonym_key : str
        Secret of this installation.

    Returns
    -------
    (rows, scrubbed)
        Rows with the columns of `ROW` and `row_sha256`, sorted by id; and what was taken out of their texts, by kind.
    """
    scrubbed: Counter[str] = Counter()
    rows: list[dict[str, Any]] = []
    for take in takes.iter_rows(named=True):
        parts = heard.get(take["audio_sha256"], {})
        shared = _of_take(take, policy, pseudonym_key, scrubbed)
        cut = _cut(take, parts, policy)
        for number, clip in enumerate(cut):
            name = take["file_id"] if len(cut) == 1 else f"{take['file_id']}-{number:03d}"
            rows.append({**shared, **_of_clip(take, parts, clip, shared["prompt"], policy), "id": name})
    for row in rows:
        row["row_sha256"] = row_hash(row)
    return pl.DataFrame(rows, schema={**ROW, "row_sha256": pl.String}).sort("id"), scrubbed


def row_hash(row: Mapping[str, Any]) -> str:
    """Hash what a row says: SHA-256 of its canonical JSON, in hex."""
    said = {column: row[column] for column in ROW}
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()).hexdigest()


def content_hash(rows: pl.DataFrame, policy: Policy, formats: Mapping[str, str]) -> str:
    """Hash a version: its rows, policy and formats. First `HASH_DIGITS` hex digits of a SHA-256."""
    parts = [rows["row_sha256"].sort().to_list(), policy.model_dump(mode="json"), ROWS_VERSION, dict(formats)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:HASH_DIGITS]


def ordinal_of(version: str) -> int:
    """Ordinal of a version's name.

    >>> ordinal_of("v12-0123456789ab")
    12
    """
    number, _, digest = version.removeprefix("v").partition("-")
    if not number.isdigit() or len(digest) != HASH_DIGITS:
        raise ConfigurationError(f"{version!r} is no version: they are named such as v3-0123456789ab")
    return int(number)


def read_lineage(folder: Path) -> dict[str, Any]:
    """What a version was made from and by, with its counts."""
    found: dict[str, Any] = json.loads((folder / "lineage" / "lineage.json").read_text(encoding="utf-8"))
    return found


def diff(old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """Tell what makes the one version of the other: `id`, `change` (added, removed, changed), `columns` that changed."""
    both = old.join(new, on="id", how="inner", suffix="_new")
    differing = [pl.when(pl.col(c).ne_missing(pl.col(f"{c}_new"))).then(pl.lit(c)) for c in ROW if c != "id"]
    changed = both.filter(pl.col("row_sha256") != pl.col("row_sha256_new")).select(
        "id", "generation_id", change=pl.lit("changed"), columns=pl.concat_list(differing).list.drop_nulls()
    )
    empty = pl.lit([], pl.List(pl.String))
    added = new.join(old, on="id", how="anti").select("id", "generation_id", change=pl.lit("added"), columns=empty)
    removed = old.join(new, on="id", how="anti").select("id", "generation_id", change=pl.lit("removed"), columns=empty)
    return pl.concat([added, changed, removed]).sort("id")


def apply(old: pl.DataFrame, changes: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """Apply a diff to the older version: keeps its untouched rows, and takes from `new` only what the diff names."""
    touched = changes.filter(pl.col("change") != "removed").select("id")
    kept = old.join(changes.select("id"), on="id", how="anti")
    return pl.concat([kept, new.join(touched, on="id", how="semi")]).sort("id")


def _cut(take: Mapping[str, Any], parts: Mapping[str, Mapping[str, Any]], policy: Policy) -> list[Clip]:
    downbeats_s = parts.get("rhythm", {}).get("downbeats_s") or []
    sections_s = section_starts_s(dict(parts.get("structure", {})))
    return clips(take["duration_s"], policy.audio, downbeats_s=downbeats_s, sections_s=sections_s)


def _of_take(take: Mapping[str, Any], policy: Policy, key: str, scrubbed: Counter[str]) -> dict[str, Any]:
    params = scrub_values(json.loads(take["generation_params"]), scrubbed)
    enhanced = take["ai_enhanced_prompt"]
    user_prompt = scrub(take["user_prompt"], scrubbed)
    enhanced = None if enhanced is None else scrub(enhanced, scrubbed)
    return {
        **{name: take[name] for name in ("split", "liked", "rating", "used", "provider", "generation_id", "group_id")},
        **{name: take[name] for name in ("audio_sha256", "mood", "beats_per_bar", "features_versions")},
        "key": sure_key(take),  # trainers read columns and sidecars as they read captions
        **{
            name: _rounded(take[name])
            for name in ("loudness_lufs", "quality_score", "adherence", "claimed_duration_s", "seed_score")
        },
        "prompt": enhanced or user_prompt,
        "user_prompt": user_prompt,
        "ai_enhanced_prompt": enhanced,
        "generation_params": json.dumps(params, ensure_ascii=False),
        "genre": scrub(take["genre"], scrubbed) if take["genre"] else None,
        "model_used": scrub(take["model_used"], scrubbed) if take["model_used"] else None,
        "licence": policy.licences.by_provider.get(take["provider"]),
        "user": pseudonym(take["user_id"], key),
        "audio_url": bare_url(take["audio_url"]),
        "created_at": take["created_at"].isoformat().replace("+00:00", "Z"),
        "parent": take["file_id"],
        "take_duration_s": _rounded(take["duration_s"]),
        "take_tempo_bpm": _rounded(sure_tempo_bpm(take)),
        "take_has_vocals": take["has_vocals"],
        "source_sample_rate_hz": take["sample_rate_hz"],
        "source_channels": take["channels"],
    }


def _of_clip(
    take: Mapping[str, Any], parts: Mapping[str, Mapping[str, Any]], clip: Clip, prompt: str, policy: Policy
) -> dict[str, Any]:
    rhythm = parts.get("rhythm", {})
    beats_s, is_changing = rhythm.get("beats_s") or [], bool(rhythm.get("has_tempo_change"))
    tempo_bpm = clip_tempo_bpm(clip, beats_s, take["tempo_bpm"], has_tempo_change=is_changing)
    has_vocals = take["has_vocals"]
    if has_vocals and "vocal_segments_s" in parts.get("vocals", {}):
        has_vocals = clip_vocal_share(clip, parts["vocals"]["vocal_segments_s"]) >= FEWEST_VOCALS
    instruments = list(parts.get("style", {}).get("instruments") or ())
    facts = {**take, "genre": take["heard_genre"], "tempo_bpm": tempo_bpm, "has_vocals": has_vocals, "instruments": instruments}
    caption = heard_caption(facts)
    return {
        "start_s": clip.start_s,
        "end_s": round(clip.end_s, 6),
        "duration_s": round(clip.end_s - clip.start_s, 6),
        "tempo_bpm": _rounded(sure_tempo_bpm(facts)),
        "has_vocals": has_vocals,
        "instruments": instruments,
        "caption": caption,
        "text": trainer_text(prompt, caption, policy.captions),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
