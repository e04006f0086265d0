"""Fingerprints of a day's audio, and the copies that they reveal among all audio."""

from functools import partial

import dagster as dg

from assets import report, takes
from assets.partitions import capture_day
from keeptake.audio_store import AudioStore
from keeptake.curation.duplicates import Group
from keeptake.embedding import DEFAULT_MODEL
from keeptake.examples import draw_thumbnails
from keeptake.fingerprinting import fingerprint_day, prepare_fingerprinting
from keeptake.ledger import tables
from keeptake.ledger.connection import Ledger
from keeptake.ledger.duplicates import compare_new, duplicate_groups, newest_groups, pairs_table
from keeptake.ledger.overviews import takes_by_audio
from keeptake.progress import to_log
from keeptake.settings import settings
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
def near_duplicates(ledger: LedgerResource, audio_store: AudioStoreResource) -> dg.MaterializeResult[None]:
    """Copies among all audio, each pair with its evidence, found by holding what is new against everything."""
    done = compare_new(ledger.get(), model=DEFAULT_MODEL)
    groups = duplicate_groups(ledger.get())
    return dg.MaterializeResult(
        metadata={
            "compared": done.compared,
            "found": done.duplicates,
            "excerpts": done.excerpts,
            "alike": done.alike,
            "groups": len(groups),
            "newest_groups": _shown(ledger.get(), audio_store.get(), groups, is_new=done.duplicates > 0),
            "pairs": report.table(pairs_table(ledger.get())),
        }
    )


def _shown(ledger: Ledger, store: AudioStore, groups: list[Group], *, is_new: bool) -> dg.MarkdownMetadataValue:
    newest = newest_groups(ledger, groups, most=takes.SHOWN_GROUPS)
    files = [member for group in newest for member in group.members[: takes.MOST_ROWS]]
    known = takes_by_audio(ledger, (member for group in newest for member in group.members))
    drawn = draw_thumbnails(store, files) if is_new else {}
    return takes.duplicate_groups(newest, takes.Shown(known, drawn, store, takes.open_api(settings())))
