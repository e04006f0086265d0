"""What exactly is a version of a dataset? Its rows, each complete in itself, and the hash that names them.

Conventions: a row is a clip of a take with everything that any format writes of it; rows are sorted by id. A version's name is
`vN-HASH`: its ordinal, and the first digits of the hash over rows, policy and the versions of what makes files of them. The same
rows under the same policy are the same version, whenever they are published.

Belongs here: rows and hashes. Does not: choosing takes (`select.py`), writing files (`building.py`, `formats/`).
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from keeptake.curation.adherence import HEARD
from keeptake.curation.captions import (
    CAPTIONS_VERSION,
    clip_tempo_bpm,
    clip_vocal_share,
    heard_caption,
    sure_key,
    sure_tempo_bpm,
    trainer_text,
)
from keeptake.curation.contradictions import contradicted, without
from keeptake.curation.policy import Policy
from keeptake.curation.scrub import SCRUB_VERSION, bare_url, pseudonym, scrub, scrub_values
from keeptake.curation.segments import Clip, clips, section_starts_s
from keeptake.errors import ConfigurationError

ROWS_VERSION = f"rows-3+captions-{CAPTIONS_VERSION}+scrub-{SCRUB_VERSION}"
HASH_DIGITS = 12
NAME = re.compile(rf"v([0-9]+)-[0-9a-f]{{{HASH_DIGITS}}}")
_MAKING = ("policy", "formats", "features_versions", "scaler", "made_with")  # what a lineage says of how, not of what
_JUDGED = ("tempo_bpm", "tempo_confidence", "key", "key_confidence", "vocals_probability")
TAKES_AT_ONCE = 2_000
Heard = Mapping[str, Mapping[str, Mapping[str, Any]]]  # audio hash → part → its values
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
    "take_loudness_lufs": pl.Float64,
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
"""Columns of a row, in the order in which every format writes them; `building.py` adds what it measures of the written clip."""


class Planned(NamedTuple):
    """Rows of a version, and what their texts lost."""

    rows: pl.DataFrame  # the columns of `ROW` and `row_sha256`, sorted by id
    scrubbed: Counter[str]  # personal data, by kind
    contradicted: int  # rows whose prompt said what the clip contradicts


def plan_rows(takes: pl.DataFrame, heard_of: Callable[[Sequence[str]], Heard], policy: Policy, *, pseudonym_key: str) -> Planned:
    """Make the rows of a version from the takes that were chosen.

    Parameters
    ----------
    takes : pl.DataFrame
        As `ledger.datasets.kept_takes` gives them.
    heard_of : callable
        Beats, sections, tags and voices over time of audio files, by their hashes: asked for `TAKES_AT_ONCE` at a time, since of
        all takes of a large dataset they fill the memory.
    policy : Policy
        How to cut, and which text a trainer reads.
    pseudonym_key : str
        Secret of this installation.

    Returns
    -------
    Planned
    """
    scrubbed: Counter[str] = Counter()
    rows: list[dict[str, Any]] = []
    hearings: list[dict[str, Any]] = []
    for take, parts in _heard(takes, heard_of):
        shared = _of_take(take, policy, pseudonym_key, scrubbed)
        cut = _cut(take, parts, policy)
        for number, clip in enumerate(cut):
            name = take["file_id"] if len(cut) == 1 else f"{take['file_id']}-{number:03d}"
            facts = _facts(take, parts, clip)
            rows.append({**shared, **_of_clip(facts, clip), "id": name})
            hearings.append({name: facts.get(name) for name in _JUDGED} | {"prompt": shared["prompt"]})
    wordings = _wordings(hearings, policy)
    for row, wording in zip(rows, wordings, strict=True):
        row["text"] = trainer_text(wording, row["caption"], policy.captions)
        row["row_sha256"] = row_hash(row)
    lost = sum(row["prompt"] != wording for row, wording in zip(rows, wordings, strict=True))
    return Planned(pl.DataFrame(rows, schema={**ROW, "row_sha256": pl.String}).sort("id"), scrubbed, lost)


def _heard(
    takes: pl.DataFrame, heard_of: Callable[[Sequence[str]], Heard]
) -> Iterator[tuple[dict[str, Any], Mapping[str, Mapping[str, Any]]]]:
    """Each take with what was heard in it."""
    for some in takes.iter_slices(TAKES_AT_ONCE):
        heard = heard_of(some["audio_sha256"].to_list())
        for take in some.iter_rows(named=True):
            yield take, heard.get(take["audio_sha256"], {})


def _wordings(hearings: list[dict[str, Any]], policy: Policy) -> list[str]:
    """The prompts of clips, each without the words that its clip contradicts."""
    table = pl.DataFrame(hearings, schema={"prompt": pl.String, **{name: HEARD[name] for name in _JUDGED}})
    denied = contradicted(table, beside_caption=policy.captions.trainer_reads == "both")
    return [without(prompt, terms) for prompt, terms in zip(table["prompt"], denied, strict=True)]


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
    named = NAME.fullmatch(version)
    if named is None:
        raise ConfigurationError(f"{version!r} is no version: they are named such as v3-0123456789ab")
    return int(named[1])


def read_lineage(folder: Path) -> dict[str, Any]:
    """What a version was made from and by, with its counts."""
    found: dict[str, Any] = json.loads((folder / "lineage" / "lineage.json").read_text(encoding="utf-8"))
    return found


def complete(rows: pl.DataFrame) -> pl.DataFrame:
    """Add the columns of `ROW` that rows of a version by an earlier release lack, as null."""
    return rows.with_columns(pl.lit(None, kind).alias(name) for name, kind in ROW.items() if name not in rows.columns)


def made_otherwise(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What two lineages tell apart of how versions were made: each key and both values, `policy.audio.cut`, `none → head`."""
    before, after = (dict(_flat({part: lineage.get(part) for part in _MAKING})) for lineage in (old, new))
    keys = [*before, *(key for key in after if key not in before)]
    return [(key, f"{_said(before.get(key))} → {_said(after.get(key))}") for key in keys if before.get(key) != after.get(key)]


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _said(value: Any) -> str:  # noqa: ANN401 -- any JSON value
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def diff(old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """Tell what makes the one version of the other: `id`, `change` (added, removed, changed), `columns` that changed."""
    old, new = complete(old), complete(new)
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
        **{name: _rounded(take[name]) for name in ("quality_score", "adherence", "claimed_duration_s", "seed_score")},
        "prompt": enhanced or user_prompt,
        "user_prompt": user_prompt,
        "ai_enhanced_prompt": enhanced,
        "generation_params": json.dumps(params, ensure_ascii=False),
        "genre": scrub(take["genre"], scrubbed) if take["genre"] else None,
        "model_used": scrub(take["model_used"], scrubbed) if take["model_used"] else None,
        "licence": policy.licences.by_provider.get(take["provider"].lower()),
        "user": pseudonym(take["user_id"], key),
        "audio_url": bare_url(take["audio_url"]),
        "created_at": take["created_at"].isoformat().replace("+00:00", "Z"),
        "parent": take["file_id"],
        "take_duration_s": _rounded(take["duration_s"]),
        "take_tempo_bpm": _rounded(sure_tempo_bpm(take)),
        "take_loudness_lufs": _rounded(take["loudness_lufs"]),
        "take_has_vocals": take["has_vocals"],
        "source_sample_rate_hz": take["sample_rate_hz"],
        "source_channels": take["channels"],
    }


def _facts(take: Mapping[str, Any], parts: Mapping[str, Mapping[str, Any]], clip: Clip) -> dict[str, Any]:
    """What was heard in a clip, by the names of the features; tempo and key only where they are sure enough to train on."""
    rhythm = parts.get("rhythm", {})
    beats_s, is_changing = rhythm.get("beats_s") or [], bool(rhythm.get("has_tempo_change"))
    tempo_bpm = clip_tempo_bpm(clip, beats_s, take["tempo_bpm"], has_tempo_change=is_changing)
    has_vocals, probability = take["has_vocals"], take["vocals_probability"]
    if has_vocals and "vocal_segments_s" in parts.get("vocals", {}):
        has_vocals = clip_vocal_share(clip, parts["vocals"]["vocal_segments_s"]) >= FEWEST_VOCALS
        probability = probability if has_vocals else 0.0
    instruments = list(parts.get("style", {}).get("instruments") or ())
    facts = {**take, "genre": take["heard_genre"], "tempo_bpm": tempo_bpm, "has_vocals": has_vocals, "instruments": instruments}
    sure = {"tempo_bpm": sure_tempo_bpm(facts), "key": sure_key(facts), "vocals_probability": probability}
    return {**facts, **sure}


def _of_clip(facts: Mapping[str, Any], clip: Clip) -> dict[str, Any]:
    return {
        "start_s": clip.start_s,
        "end_s": round(clip.end_s, 6),
        "duration_s": round(clip.end_s - clip.start_s, 6),
        "tempo_bpm": _rounded(facts["tempo_bpm"]),
        "has_vocals": facts["has_vocals"],
        "instruments": facts["instruments"],
        "caption": heard_caption(facts),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
