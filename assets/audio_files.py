"""Bytes fetched once, proved to decode, stored under their hash; the rest quarantined with a reason."""

import dagster as dg

from assets import report
from assets.partitions import capture_day
from keeptake.custody.keep import keep_day
from keeptake.ledger import overviews
from keeptake.ledger.tables import audio
from keeptake.progress import to_log
from keeptake.settings import settings
from resources.audio_store import AudioStoreResource
from resources.ledger import LedgerResource


@dg.asset(
    partitions_def=capture_day,
    group_name="custody",
    kinds={"python", "postgres"},
    owners=["team:data"],
    deps=["raw_generations"],
    metadata={"dagster/column_schema": report.schema_of(audio), "dagster/table_name": "public.audio"},
)
def audio_files(
    context: dg.AssetExecutionContext, ledger: LedgerResource, audio_store: AudioStoreResource
) -> dg.MaterializeResult[None]:
    """The audio of every generation of this day, kept once under its hash, or a named reason why not."""
    day = context.partition_key
    done = keep_day(ledger.get(), day, audio_store.get(), settings(), progress=to_log(context.log.info))
    by_status = overviews.arrivals_by(ledger.get(), day, "audio_status")
    return dg.MaterializeResult(
        metadata={
            "dagster/partition_row_count": by_status.get("stored", 0),
            "kept": done.done,
            "remaining": done.remaining,
            "by_status": report.counts(by_status, name="audio_status"),
            "reasons": report.counts(overviews.arrivals_by(ledger.get(), day, "audio_reason")),
            "newest": report.table(overviews.audio_of_day(ledger.get(), day)),
        }
    )
