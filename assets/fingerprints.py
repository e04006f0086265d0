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
from keeptake.ledger.duplicates import compare_new, duplicate_groups, newest_groups, pairs_by_relation, pairs_table
from keeptake.ledger.overviews import fingerprints_of_day, takes_by_audio
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
    day, log = context.partition_key, to_log(context.log.info)
    done = fingerprint_day(ledger.get(), day, pool, compute.limits(), progress=log)
    return dg.MaterializeResult(
        metadata={
            "dagster/partition_row_count": fingerprints_of_day(ledger.get(), day),
            "fingerprinted_in_this_run": done.done,
            "remaining": done.remaining,
            "failed_in_this_run": report.counts(dict(done.failed)),
        }
    )


@dg.asset(
    group_name="quality",
    kinds={"python", "postgres"},
    owners=["team:data"],
    deps=["fingerprints", "embedding_space"],
    metadata={"dagster/column_schema": report.schema_of(tables.duplicate_pairs), "dagster/table_name": "public.duplicate_pairs"},
)
def near_duplicates(ledger: LedgerResource, audio_store: AudioStoreResource) -> dg.MaterializeResult[None]:
    """Copies among all audio, each pair with its evidence, found by holding what is new against everything."""
    done = compare_new(ledger.get(), model=DEFAULT_MODEL, wait_s=settings().run_budget_s)
    groups, pairs = duplicate_groups(ledger.get()), pairs_by_relation(ledger.get())
    return dg.MaterializeResult(
        metadata={
            "files_compared_in_this_run": done.compared,
            "duplicates_in_this_run": done.duplicates,
            "excerpts_in_this_run": done.excerpts,
            "alike_in_this_run": done.alike,
            "groups": len(groups),
            "pairs_by_relation": report.counts(pairs, name="relation"),
            "newest_groups": _shown(ledger.get(), audio_store.get(), groups, is_idle=not done.duplicates),
            "pairs": report.table(pairs_table(ledger.get()), of=sum(pairs.values())),
        }
    )


def _shown(ledger: Ledger, store: AudioStore, groups: list[Group], *, is_idle: bool) -> dg.MarkdownMetadataValue:
    newest = newest_groups(ledger, groups, most=takes.SHOWN_GROUPS)
    files = [member for group in newest for member in group.members[: takes.MOST_ROWS]]
    known = takes_by_audio(ledger, (member for group in newest for member in group.members))
    drawn = draw_thumbnails(store, files, is_idle=is_idle)
    return takes.duplicate_groups(newest, takes.Shown(known, drawn, store, takes.open_api(settings())))
