"""Generations pulled from the sources into the ledger, as captured."""

from collections.abc import Iterator, Mapping

import dagster as dg

from assets import report
from assets.partitions import capture_day, check_of_each
from keeptake.ledger import overviews
from keeptake.ledger.status import day_counts
from keeptake.ledger.tables import generations
from keeptake.progress import to_log
from keeptake.settings import settings
from keeptake.sources.pull import pull_sources, today
from resources.ledger import LedgerResource

SOURCES = "every_source_was_read"


@dg.asset(
    partitions_def=capture_day,
    group_name="capture",
    kinds={"python", "postgres"},
    owners=["team:data"],
    metadata={"dagster/column_schema": report.schema_of(generations), "dagster/table_name": "public.generations"},
    check_specs=[check_of_each(capture_day, "raw_generations", SOURCES, "No folder, feed or table failed.")],
)
def raw_generations(
    context: dg.AssetExecutionContext, ledger: LedgerResource
) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[None]]:
    """Generations that the ledger accepted on this day, from the API and from every source."""
    day, store = context.partition_key, ledger.get()
    pulled = pull_sources(store, settings(), progress=to_log(context.log.info)) if day == today() else None
    yield _reading(pulled.failed if pulled else {})
    yield dg.MaterializeResult(
        metadata={
            "dagster/partition_row_count": sum(day_counts(store, day).values()),
            "pulled": dg.MetadataValue.json(pulled.as_dict() if pulled else {}),
            "by_provider": report.counts(overviews.arrivals_by(store, day, "provider"), name="provider"),
            "by_source": report.counts(overviews.arrivals_by(store, day, "source"), name="source"),
            "refused": report.counts(overviews.refusals_of_day(store, day)),
            "examples": report.table(overviews.arrivals_of_day(store, day)),
        }
    )


def _reading(failed: Mapping[str, str]) -> dg.AssetCheckResult:
    """Warn of sources that could not be read: what they bring is missing, and the others hide it."""
    said = "; ".join(f"{name}: {why}" for name, why in failed.items())
    return dg.AssetCheckResult(
        check_name=SOURCES,
        passed=not failed,
        severity=dg.AssetCheckSeverity.WARN,
        description=said or "every source was read, where there was one to read",
    )
