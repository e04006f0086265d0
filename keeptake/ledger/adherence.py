"""Asked against heard, in the ledger: which takes lag, and what was found of them.

A judgement remembers the version of the rules and of the features that it was made from: only takes whose hearing moved since, or
that were never judged, are judged again. Belongs here: SQL of `adherence`. Does not: verdicts (`curation/adherence.py`).
"""

import json
from collections.abc import Iterator
from typing import Any

import polars as pl

from keeptake.curation.adherence import ADHERENCE_VERSION, ASKED, HEARD, WEIGHTS, asked, judge, terms_of
from keeptake.ledger.bulk import upsert
from keeptake.ledger.connection import Ledger
from keeptake.ledger.tables import adherence, features

PAGE_ROWS = 20_000

_HEARD_COLUMNS = [name for name in HEARD if name in features.c]
_LAGGING = f"""
    SELECT g.id, g.user_prompt, g.ai_enhanced_prompt, g.generation_params::text AS params, f.versions,
           {", ".join(f"f.{name}" for name in _HEARD_COLUMNS)}
    FROM generations g JOIN features f ON f.audio_sha256 = g.audio_sha256 LEFT JOIN adherence a ON a.generation = g.id
    WHERE g.id > {{after}} AND g.status <> 'quarantined'
      AND (a.version IS DISTINCT FROM '{ADHERENCE_VERSION}' OR a.features_versions IS DISTINCT FROM f.versions)
    ORDER BY g.id LIMIT {{most}}
"""


def judge_lagging(ledger: Ledger) -> pl.DataFrame:
    """Judge every take that lags, page by page, each page its own commit.

    Returns
    -------
    pl.DataFrame
        `term, verdict, takes`: how often each verdict, or reason why there is none, was given.
    """
    after, counts = 0, [pl.DataFrame(schema={"term": pl.String, "verdict": pl.String, "takes": pl.UInt32})]
    while (page := ledger.arrow(_LAGGING.format(after=after, most=PAGE_ROWS))).height:
        after = page["id"][-1]
        judged = judge(_requests(page))
        with ledger.begin() as connection:
            upsert(connection, adherence, _rows(judged), conflict=("generation",))
        counts += [_counted(judged, term) for term in WEIGHTS]
    return pl.concat(counts).group_by("term", "verdict").agg(pl.col("takes").sum()).sort("term", "takes", "verdict")


def tempo_scatter(ledger: Ledger, *, most: int = 5_000) -> pl.DataFrame:
    """Asked and heard tempo of the takes judged last, with the verdict: what the UI draws."""
    return ledger.arrow(
        f"""
        SELECT g.generation_id, (a.terms->'tempo'->>'asked')::float8 AS asked_bpm,
               (a.terms->'tempo'->>'heard')::float8 AS heard_bpm, a.terms->'tempo'->>'verdict' AS verdict
        FROM adherence a JOIN generations g ON g.id = a.generation
        WHERE a.terms->'tempo'->>'verdict' IS NOT NULL AND jsonb_typeof(a.terms->'tempo'->'asked') = 'number'
        ORDER BY a.judged_at DESC, g.generation_id LIMIT {int(most)}
        """
    )


def _requests(page: pl.DataFrame) -> pl.DataFrame:
    wishes = [
        asked(json.loads(params), prompt, enhanced)
        for params, prompt, enhanced in page.select("params", "user_prompt", "ai_enhanced_prompt").iter_rows()
    ]
    heard = page.select("id", "versions", *(pl.col(name).cast(HEARD[name]) for name in _HEARD_COLUMNS))
    return pl.concat([heard, pl.DataFrame(wishes, schema=ASKED)], how="horizontal")


def _rows(judged: pl.DataFrame) -> Iterator[dict[str, Any]]:
    for row in judged.iter_rows(named=True):
        yield {
            "generation": row["id"],
            "version": ADHERENCE_VERSION,
            "features_versions": row["versions"],
            "total": row["adherence"],
            "terms": terms_of(row),
        }


def _counted(judged: pl.DataFrame, term: str) -> pl.DataFrame:
    said = pl.coalesce(f"{term}_verdict", f"{term}_reason").alias("verdict")
    return judged.select(pl.lit(term).alias("term"), said).group_by("term", "verdict").agg(takes=pl.len())
