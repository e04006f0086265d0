"""Total, every term, and the version of the formula, for every take that lags."""

import dagster as dg
import polars as pl

from assets import report
from keeptake.curation.quality import FORMULAS
from keeptake.ledger import overviews, tables
from keeptake.ledger.scores import score_lagging
from keeptake.settings import settings
from keeptake.warehouse import write_score_report
from resources.ledger import LedgerResource


@dg.asset(
    group_name="quality",
    kinds={"python", "polars", "postgres"},
    owners=["team:data"],
    deps=["analyzed_features", "embeddings"],
    metadata={"dagster/column_schema": report.schema_of(tables.quality_scores), "dagster/table_name": "public.quality_scores"},
)
def quality_scores(ledger: LedgerResource) -> dg.MaterializeResult[None]:
    """Quality scores of every take whose analysis or feedback moved since its last score."""
    from keeptake.formats.figures import score_histogram

    done = score_lagging(ledger.get())
    totals = {formula: overviews.scores(ledger.get(), formula)["total"] for formula in FORMULAS}
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": totals[FORMULAS[0]].len(),
            "scored": done.scored,
            "pictures": report.pictures({formula: score_histogram(total.to_list()) for formula, total in totals.items()}),
            "means": report.table(pl.DataFrame({formula: [total.mean()] for formula, total in totals.items()})),
            "best_and_worst": report.table(overviews.best_and_worst(ledger.get())),
        }
    )


@dg.asset(group_name="quality", kinds={"polars", "markdown"}, owners=["team:data"], deps=["quality_scores"])
def score_report(ledger: LedgerResource) -> dg.MaterializeResult[None]:
    """The distribution of all scores by formula, provider and week, kept as a dated page."""
    path, by_provider = write_score_report(ledger.get(), settings().home / "reports")
    return dg.MaterializeResult(
        metadata={
            "path": dg.MetadataValue.path(path),
            "by_provider": report.table(by_provider),
            "picture": report.figures({"Scores": path.with_suffix(".png").read_bytes()}),
        }
    )
