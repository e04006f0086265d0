"""One analysis an audio file."""

from functools import partial

import dagster as dg

from assets import report
from assets.partitions import capture_day
from keeptake.examples import draw_examples
from keeptake.ledger import overviews
from keeptake.ledger.connection import Ledger
from keeptake.ledger.tables import features
from keeptake.progress import to_log
from keeptake.settings import settings
from keeptake.stage import StageReport
from keeptake.stages import hear_day, prepare_hearing
from resources.audio_store import AudioStoreResource
from resources.compute import ComputeResource
from resources.ledger import LedgerResource


@dg.asset(
    partitions_def=capture_day,
    group_name="hearing",
    kinds={"python", "postgres"},
    owners=["team:data"],
    deps=["audio_files"],
    metadata={"dagster/column_schema": report.schema_of(features), "dagster/table_name": "public.features"},
)
def analyzed_features(
    context: dg.AssetExecutionContext, ledger: LedgerResource, audio_store: AudioStoreResource, compute: ComputeResource
) -> dg.MaterializeResult[None]:
    """One analysis for every audio file captured on this day."""
    day, store = context.partition_key, audio_store.get()
    pool = compute.pool(partial(prepare_hearing, store.url, settings().models_location))
    log = to_log(context.log.info)
    done = hear_day(ledger.get(), day, pool, compute.limits(), progress=log)
    examples = draw_examples(ledger.get(), day, store, is_idle=not done.done, progress=log)
    return dg.MaterializeResult(metadata={**_shown(ledger.get(), day, done), "plots": report.pictures(examples)})


def _shown(ledger: Ledger, day: str, done: StageReport) -> dict[str, dg.MetadataValue | int | float | None]:
    from keeptake.formats.figures import key_wheel, tempo_histogram

    heard = overviews.features_of_day(ledger, day)
    return {
        "dagster/partition_row_count": heard["audio_sha256"].n_unique(),  # of the table, which has a row a file
        "takes": heard.height,
        "analyzed": done.done,
        "remaining": done.remaining,
        "unheard": report.counts(overviews.unheard_of_day(ledger, day)),
        "analysis_rate": overviews.analysis_rate_of_day(ledger, day),
        "examples": report.table(heard.drop("audio_sha256").tail(overviews.EXAMPLES), of=heard.height),
        "pictures": report.figures(
            {"Tempo": tempo_histogram(heard["tempo_bpm"].to_list()), "Key": key_wheel(heard["key"].to_list())}
        ),
    }
