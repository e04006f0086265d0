"""A capture day's features, embeddings and scores as Parquet for anyone's DuckDB, without personal data."""

import dagster as dg

from assets import report
from assets.partitions import capture_day
from keeptake.settings import settings
from keeptake.warehouse import write_snapshot
from resources.ledger import LedgerResource


@dg.asset(
    partitions_def=capture_day,
    group_name="published",
    kinds={"polars", "parquet"},
    owners=["team:ml"],
    deps=["quality_scores", "embeddings"],
)
def feature_snapshots(context: dg.AssetExecutionContext, ledger: LedgerResource) -> dg.MaterializeResult[None]:
    """Features, vectors and scores of this day's takes as one Parquet file, without users, prompts or free text."""
    path, frame = write_snapshot(ledger.get(), context.partition_key, settings().snapshots_location)
    return dg.MaterializeResult(
        metadata={
            "dagster/partition_row_count": frame.height,
            "path": dg.MetadataValue.path(path),
            "bytes": path.stat().st_size,
            "dagster/column_schema": report.schema_of_frame(frame),
            "examples": report.table(frame.drop("vector").head(5)),
        }
    )
