"""Fingerprints of a day's audio, and the copies that they reveal among all audio."""

from functools import partial

import dagster as dg

from assets import report
from assets.partitions import capture_day
from keeptake.embedding.models import DEFAULT_MODEL
from keeptake.fingerprinting import fingerprint_day, prepare_fingerprinting
from keeptake.ledger import tables
from keeptake.ledger.duplicates import compare_new, duplicate_groups, pairs_table
from keeptake.progress import to_log
from resources.audio_store import AudioStoreResource
from resources.compute import ComputeResource
from resources.ledger import LedgerResource


@dg.asset(
    partitions_def=capture_day,
    group_name="hearing",
    kinds={"python", "postgres"},
    owners=["team:data"],
    deps=["audio_files"],
    metadata={"dagster/column_schema": report.schema_of(tables.fingerprints), "dagster/table_name": "public.fingerprints"},
)
def fingerprints(
    context: dg.AssetExecutionContext, ledger: LedgerResource, audio_store: AudioStoreResource, compute: ComputeResource
) -> dg.MaterializeResult[None]:
    """One fingerprint for every audio file captured on this day."""
    pool = compute.pool(partial(prepare_fingerprinting, audio_store.get().url))
    log = to_log(context.log.info)
    done = fingerprint_day(ledger.get(), context.partition_key, pool, compute.limits(), progress=log)
    failed = report.counts(dict(done.failed))
    return dg.MaterializeResult(metadata={"fingerprinted": done.done, "remaining": done.remaining, "failed": failed})


@dg.asset(
    group_name="quality",
    kinds={"python", "postgres"},
    owners=["team:data"],
    deps=["fingerprints", "embedding_space"],
    metadata={"dagster/column_schema": report.schema_of(tables.duplicate_pairs), "dagster/table_name": "public.duplicate_pairs"},
)
def near_duplicates(ledger: LedgerResource) -> dg.MaterializeResult[None]:
    """Copies among all audio, each pair with its evidence, found by holding what is new against everything."""
    done = compare_new(ledger.get(), model=DEFAULT_MODEL)
    groups = duplicate_groups(ledger.get())
    return dg.MaterializeResult(
        metadata={
            "compared": done.compared,
            "found": done.duplicates,
            "excerpts": done.excerpts,
            "groups": len(groups),
            "pairs": report.table(pairs_table(ledger.get())),
        }
    )
