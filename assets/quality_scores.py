"""Total, every term, and the version of the formula, for every take that lags."""

import dagster as dg
import polars as pl

from assets import report
from keeptake.curation.quality import PRINCIPAL
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
    from keeptake.formats.figures import score_bars

    done = score_lagging(ledger.get())
    spread = overviews.score_distributions(ledger.get())
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": sum(sum(of.counts) for of in spread.values()),  # of the table: a row a take and formula
            "takes": sum(spread[PRINCIPAL].counts),
            "scored": done.scored,
            "pictures": report.pictures({formula: score_bars(of.counts) for formula, of in spread.items()}),
            "means": report.table(pl.DataFrame({formula: [of.mean] for formula, of in spread.items()})),
            "best_and_worst": report.table(overviews.best_and_worst(ledger.get())),
        }
    )


@dg.asset(group_name="quality", kinds={"polars", "markdown"}, owners=["team:data"], deps=["quality_scores"])
def score_report(ledger: LedgerResource) -> dg.MaterializeResult[None]:
    """How all scores of the principal formula are spread, and what they are by provider and week, kept as a dated page."""
    path, by_provider = write_score_report(ledger.get(), settings().home / "reports")
    return dg.MaterializeResult(
        metadata={
            "path": dg.MetadataValue.path(path),
            "by_provider": report.table(by_provider),
            "picture": report.figures({"Scores": path.with_suffix(".png").read_bytes()}),
        }
    )
