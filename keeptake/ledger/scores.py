"""Quality scores in the ledger: which takes lag, and what they are worth.

A score remembers the feedback revision and the features that it was made from: only takes that moved since are scored again.
Belongs here: SQL of `quality_scores`. Does not: the formulas (`curation/quality.py`).
"""

from datetime import UTC, datetime
from typing import NamedTuple

import polars as pl
import sqlalchemy as sa

from keeptake.curation.quality import FORMULAS, FORMULAS_VERSION, HEARD, PRINCIPAL, score
from keeptake.ledger.bulk import upsert
from keeptake.ledger.connection import Ledger
from keeptake.ledger.living import LIVING
from keeptake.ledger.tables import quality_scores

PAGE_ROWS = 50_000

_LAGGING = f"""
    FROM generations g JOIN features f ON f.audio_sha256 = g.audio_sha256
    WHERE g.status <> 'quarantined' AND {LIVING}
      AND (g.scored_revision IS DISTINCT FROM g.feedback_revision
           OR g.scored_features IS DISTINCT FROM f.versions || ' {FORMULAS_VERSION}')
"""
_PAGE = f"""
    SELECT g.id, g.feedback_revision, f.versions, g.liked, g.rating, g.used, {", ".join(f"f.{name}" for name in HEARD)}
    {_LAGGING} AND g.id > {{after}} ORDER BY g.id LIMIT {PAGE_ROWS}
"""

# A feedback call may have scored a later revision while we computed: the later one stays.
_MARK = """
    UPDATE generations g
    SET quality_score = s.total, scored_revision = s.feedback_revision, scored_features = s.features_versions || ' ' || :formulas,
        status = CASE g.status WHEN 'embedded' THEN 'scored' ELSE g.status END, updated_at = now()
    FROM quality_scores s
    WHERE s.generation = g.id AND s.formula = :principal AND g.id BETWEEN :first AND :last
      AND (g.scored_revision IS NULL OR g.scored_revision <= s.feedback_revision)
      AND (g.scored_revision IS DISTINCT FROM s.feedback_revision
           OR g.scored_features IS DISTINCT FROM s.features_versions || ' ' || :formulas)
"""
_NEWER = "excluded.feedback_revision >= quality_scores.feedback_revision"
_FINISH = f"""
    UPDATE generations SET status = 'scored', updated_at = now()
    WHERE status = 'embedded' AND scored_revision IS NOT NULL AND {LIVING}
"""


class ScoreReport(NamedTuple):
    """What one pass over the lagging takes did."""

    scored: int
    totals: pl.DataFrame  # id, seed_v1, v2 of the scored takes


def score_lagging(ledger: Ledger) -> ScoreReport:
    """Score every take whose feedback or features moved since its last score, page by page, each page its own commit."""
    after, pages = 0, []
    while (page := ledger.arrow(_PAGE.format(after=after))).height:
        scored = score(page)
        after = scored["id"][-1]
        with ledger.begin() as connection:
            for formula in FORMULAS:
                upsert(connection, quality_scores, _rows(scored, formula), conflict=("generation", "formula"), where=_NEWER)
            connection.execute(
                sa.text(_MARK), {"principal": PRINCIPAL, "formulas": FORMULAS_VERSION, "first": page["id"][0], "last": after}
            )
        pages.append(scored.select("id", *FORMULAS))
    with ledger.begin() as connection:
        connection.execute(sa.text(_FINISH))
    totals = pl.concat(pages) if pages else pl.DataFrame(schema={"id": pl.Int64, **dict.fromkeys(FORMULAS, pl.Float64)})
    return ScoreReport(totals.height, totals)


def _rows(scored: pl.DataFrame, formula: str) -> list[dict[str, object]]:
    return scored.select(
        generation="id",
        formula=pl.lit(formula),
        total=formula,
        terms=pl.col(f"{formula}_terms").struct.json_encode(),
        feedback_revision="feedback_revision",
        features_versions="versions",
        scored_at=pl.lit(datetime.now(UTC)),
    ).to_dicts()


def count_lagging(ledger: Ledger) -> int:
    """How many takes with an analysis wait for a score."""
    with ledger.begin() as connection:
        return int(connection.scalar(sa.text(f"SELECT count(*) {_LAGGING}")) or 0)
