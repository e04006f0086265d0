"""Asked against heard, in the ledger: which takes lag, and what was found of them.

A judgement remembers the version of the rules and of the features that it was made from: only takes whose hearing moved since, or
that were never judged, are judged again. Belongs here: SQL of `adherence`. Does not: verdicts (`curation/adherence.py`).
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import sqlalchemy as sa

from keeptake.curation.adherence import ADHERENCE_VERSION, ASKED, HEARD, WEIGHTS, asked, judge, terms_of
from keeptake.errors import KeeptakeError
from keeptake.ledger.bulk import upsert
from keeptake.ledger.connection import Ledger
from keeptake.ledger.living import LIVING
from keeptake.ledger.tables import adherence, features

if TYPE_CHECKING:
    from keeptake.embedding.further import JointModel
    from keeptake.embedding.models import JointEmbedder

PAGE_ROWS = 20_000
COMPARED = ("exact", "half", "double", "wrong")  # verdicts on a tempo that was asked for and heard

_HEARD_COLUMNS = [name for name in HEARD if name in features.c]
_LAGGING = f"""
    SELECT g.id, g.user_prompt, g.ai_enhanced_prompt, g.generation_params::text AS params, f.versions,
           {", ".join(f"f.{name}" for name in _HEARD_COLUMNS)}
    FROM generations g JOIN features f ON f.audio_sha256 = g.audio_sha256 LEFT JOIN adherence a ON a.generation = g.id
    WHERE g.id > :after AND g.status <> 'quarantined' AND {LIVING}
      AND (a.version IS DISTINCT FROM :rules OR a.features_versions IS DISTINCT FROM f.versions
           OR a.terms->'text_audio'->>'verdict' IS NULL AND EXISTS (
               SELECT FROM embeddings e WHERE e.audio_sha256 = g.audio_sha256 AND e.model = :model AND e.version = :version))
    ORDER BY g.id LIMIT :most
"""
_VECTORS = """
    SELECT g.id, g.user_prompt, e.vector FROM generations g JOIN embeddings e ON e.audio_sha256 = g.audio_sha256
    WHERE g.id = ANY(:ids) AND e.model = :model AND e.version = :version
"""


def judge_lagging(
    ledger: Ledger, *, joint: "JointModel | None" = None, warn: Callable[[str], object] = lambda _: None
) -> pl.DataFrame:
    """Judge every take that lags, page by page, each page its own commit.

    Parameters
    ----------
    joint : JointModel, optional
        A model that knows text and sound: where the ledger has its vector of a take, its cosine with the prompt is a term.
        One that does not load keeps no take from being judged by all other terms.
    warn : callable
        Told why the model does not load.

    Returns
    -------
    pl.DataFrame
        `term, verdict, takes`: how often each verdict, or reason why there is none, was given.
    """
    model = {"model": joint.name if joint else "", "version": joint.version if joint else ""}
    load = cache(partial(_loaded, joint, warn)) if joint else None
    rules = f"{ADHERENCE_VERSION} {joint.name}={joint.version}" if joint else ADHERENCE_VERSION
    after, counts = 0, [pl.DataFrame(schema={"term": pl.String, "verdict": pl.String, "takes": pl.UInt32})]
    while (page := _page(ledger, {**model, "after": after, "rules": rules, "most": PAGE_ROWS})).height:
        after = page["id"][-1]
        requests = _requests(page)
        if load:
            requests = requests.join(
                _cosines(ledger, page["id"].to_list(), load, model), on="id", how="left", maintain_order="left"
            )
        judged = judge(requests)
        with ledger.begin() as connection:
            upsert(connection, adherence, _rows(judged, rules), conflict=("generation",))
        counts += [_counted(judged, term) for term in WEIGHTS]
    return pl.concat(counts).group_by("term", "verdict").agg(pl.col("takes").sum()).sort("term", "takes", "verdict")


def verdict_counts(ledger: Ledger) -> pl.DataFrame:
    """How often each verdict, or reason why there is none, stands over all judged takes: `term, verdict, takes`."""
    return ledger.arrow(
        f"""
        SELECT t.key AS term, coalesce(t.value->>'verdict', t.value->>'reason') AS verdict, count(*) AS takes
        FROM adherence a JOIN generations g ON g.id = a.generation CROSS JOIN LATERAL jsonb_each(a.terms) t
        WHERE {LIVING} GROUP BY 1, 2 ORDER BY 1, 3, 2
        """
    )


def takes_in(counts: pl.DataFrame) -> int:
    """How many takes stand behind counts of verdicts: each has a verdict, or a reason, of every term."""
    of_terms: list[int] = counts.group_by("term").agg(pl.col("takes").sum())["takes"].to_list()
    return max(of_terms, default=0)


def tempo_scatter(ledger: Ledger, *, most: int = 5_000) -> pl.DataFrame:
    """Asked and heard tempo of the takes judged last, with the verdict: what the UI draws."""
    return ledger.arrow(
        f"""
        SELECT g.generation_id, (a.terms->'tempo'->>'asked')::float8 AS asked_bpm,
               (a.terms->'tempo'->>'heard')::float8 AS heard_bpm, a.terms->'tempo'->>'verdict' AS verdict
        FROM adherence a JOIN generations g ON g.id = a.generation
        WHERE a.terms->'tempo'->>'verdict' IS NOT NULL AND jsonb_typeof(a.terms->'tempo'->'asked') = 'number' AND {LIVING}
        ORDER BY a.judged_at DESC, g.generation_id LIMIT {int(most)}
        """
    )


def _page(ledger: Ledger, values: Mapping[str, Any]) -> pl.DataFrame:
    with ledger.begin() as connection:
        found = connection.execute(sa.text(_LAGGING), values)
        return pl.DataFrame(found.all(), schema=list(found.keys()), orient="row", infer_schema_length=None)


def _loaded(joint: "JointModel", warn: Callable[[str], object]) -> "JointEmbedder | None":
    try:
        return joint.load()
    except KeeptakeError as refusal:  # those judged without it lag until it loads
        warn(f"{joint.name} judges no take: {refusal}")
        return None


def _cosines(
    ledger: Ledger, ids: Sequence[int], load: "Callable[[], JointEmbedder | None]", model: Mapping[str, str]
) -> pl.DataFrame:
    """Cosine of each take's sound with its prompt, of those takes that have a vector of the model."""
    with ledger.begin() as connection:
        rows = connection.execute(sa.text(_VECTORS), {**model, "ids": list(ids)}).all()
    schema = pl.Schema({"id": pl.Int64(), "text_audio_cosine": HEARD["text_audio_cosine"]})
    if not rows or not (embedder := load()):
        return pl.DataFrame(schema=schema)
    of_sound = np.array([vector for _, _, vector in rows], np.float64)
    of_text = embedder.embed_text([prompt for _, prompt, _ in rows]).astype(np.float64)
    size = np.linalg.norm(of_sound, axis=1) * np.linalg.norm(of_text, axis=1)
    cosine = (of_sound * of_text).sum(axis=1) / np.maximum(size, 1e-12)
    return pl.DataFrame({"id": [id_ for id_, _, _ in rows], "text_audio_cosine": cosine}, schema=schema)


def _requests(page: pl.DataFrame) -> pl.DataFrame:
    wishes = [
        asked(json.loads(params), prompt, enhanced)
        for params, prompt, enhanced in page.select("params", "user_prompt", "ai_enhanced_prompt").iter_rows()
    ]
    heard = page.select("id", "versions", *(pl.col(name).cast(HEARD[name]) for name in _HEARD_COLUMNS))
    return pl.concat([heard, pl.DataFrame(wishes, schema=ASKED)], how="horizontal")


def _rows(judged: pl.DataFrame, rules: str) -> Iterator[dict[str, Any]]:
    now = datetime.now(UTC)
    for row in judged.iter_rows(named=True):
        yield {
            "generation": row["id"],
            "version": rules,
            "features_versions": row["versions"],
            "total": row["adherence"],
            "terms": terms_of(row),
            "judged_at": now,  # an upsert leaves the default of an old row as it was
        }


def _counted(judged: pl.DataFrame, term: str) -> pl.DataFrame:
    said = pl.coalesce(f"{term}_verdict", f"{term}_reason").alias("verdict")
    return judged.select(pl.lit(term).alias("term"), said).group_by("term", "verdict").agg(takes=pl.len())
