"""One vector an audio file and model."""

from functools import partial

import dagster as dg

from assets import report
from assets.partitions import capture_day
from keeptake.embedding.models import DEFAULT_MODEL, version_of
from keeptake.ledger import overviews, tables
from keeptake.progress import to_log
from keeptake.settings import settings
from keeptake.stages import embed_day, prepare_embedding
from resources.audio_store import AudioStoreResource
from resources.compute import ComputeResource
from resources.ledger import LedgerResource


@dg.asset(
    partitions_def=capture_day,
    group_name="embedding",
    kinds={"python", "postgres"},
    owners=["team:ml"],
    deps=["analyzed_features"],
    metadata={"dagster/column_schema": report.schema_of(tables.embeddings), "dagster/table_name": "public.embeddings"},
)
def embeddings(
    context: dg.AssetExecutionContext, ledger: LedgerResource, audio_store: AudioStoreResource, compute: ComputeResource
) -> dg.MaterializeResult[None]:
    """One raw vector for every audio file captured on this day, by the default model."""
    day, model, version = context.partition_key, DEFAULT_MODEL, version_of(DEFAULT_MODEL)
    pool = compute.pool(partial(prepare_embedding, audio_store.get().url, settings().models_location, model))
    log = to_log(context.log.info)
    done = embed_day(ledger.get(), day, pool, compute.limits(), model=model, version=version, progress=log)
    vectors = overviews.embedded_of_day(ledger.get(), day)
    return dg.MaterializeResult(
        metadata={
            "dagster/partition_row_count": int(vectors["vectors"].sum()),
            "embedded": done.done,
            "remaining": done.remaining,
            "failed": report.counts(dict(done.failed)),
            "by_model": report.table(vectors),
        }
    )
