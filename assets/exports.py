"""The published version: Parquet, JSONL, CSV, trainer formats, card, manifest.

The first three write into the folder that `curated_dataset` staged; the last proves it with the trainers' readers and makes it
visible by one rename. Where nothing is staged, since the visible version says the same, they write nothing and show that one.
"""

from collections.abc import Callable, Iterator

import dagster as dg
import polars as pl

from assets import report
from assets.partitions import by_policy, check_of_each
from keeptake.curation.building import Stage, staged, write_csv, write_jsonl, write_parquet
from keeptake.curation.publish import LEAKS, READERS, publish_staged
from keeptake.datasets import find, show_version
from keeptake.errors import PublicationError
from keeptake.formats.shares import TOLERANCE, split_shares, unlike_asked
from keeptake.ledger.connection import Ledger
from keeptake.ledger.datasets import readings_of
from keeptake.progress import to_log
from keeptake.settings import settings
from resources.ledger import LedgerResource

READING = ("reader", "split", "asked", "rows_in", "rows_out", "losses")
SHARES = "shares_are_as_asked"  # tells, and keeps no version from becoming visible


def _write(policy: str, write: Callable[[Stage], None]) -> dg.MaterializeResult[None]:
    stage = staged(settings().datasets_location, policy) or _present(policy)
    write(stage)  # into the visible version nothing
    files = sorted(path.relative_to(stage.folder).as_posix() for path in stage.folder.rglob("*") if path.is_file())
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": stage.rows.height,
            "version": stage.version,
            "is_written_in_this_run": stage.is_new,
            "files": len(files),
            "dagster/column_schema": report.schema_of_frame(stage.rows),
            "examples": report.table(stage.rows.head(5), of=stage.rows.height),
        }
    )


def _present(policy: str) -> Stage:
    """The newest visible version; says what to do where there is none."""
    folder = find(policy, datasets_dir=settings().datasets_location)
    return Stage(policy, folder.name, folder, folder, is_new=False)


@dg.asset(partitions_def=by_policy, group_name="published", kinds={"jsonlines"}, owners=["team:ml"], deps=["curated_dataset"])
def training_jsonl(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """The original's JSONL lines, and the sidecars and manifests that AudioCraft and audiofolder read."""
    return _write(context.partition_key, write_jsonl)


@dg.asset(partitions_def=by_policy, group_name="published", kinds={"parquet"}, owners=["team:ml"], deps=["curated_dataset"])
def training_parquet(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """Parquet shards with embedded audio that Hugging Face datasets reads as Audio."""
    return _write(context.partition_key, write_parquet)


@dg.asset(partitions_def=by_policy, group_name="published", kinds={"csv"}, owners=["team:ml"], deps=["curated_dataset"])
def analysis_csv(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """The original's nine CSV columns, for analysis in a spreadsheet."""
    return _write(context.partition_key, write_csv)


@dg.asset(
    partitions_def=by_policy,
    group_name="published",
    kinds={"json"},
    owners=["team:ml"],
    deps=["training_jsonl", "training_parquet", "analysis_csv"],
    check_specs=[
        check_of_each(by_policy, "dataset_manifest", LEAKS, "Nothing stands in two splits.", blocking=True),
        check_of_each(by_policy, "dataset_manifest", READERS, "Each reader reads each row.", blocking=True),
        check_of_each(by_policy, "dataset_manifest", SHARES, "Clips and minutes of each split are about as the policy asks."),
    ],
)
def dataset_manifest(
    context: dg.AssetExecutionContext, ledger: LedgerResource
) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[None]]:
    """The version made visible: read back by every trainer's reader, renamed into place with the hash of every file."""
    policy = context.partition_key
    stage = staged(settings().datasets_location, policy)
    if stage is not None:
        try:
            published = publish_staged(ledger.get(), stage, progress=to_log(context.log.info))
        except PublicationError as refusal:
            yield from _refused(refusal)
            raise
        context.log.info(f"published {policy} {published.version}: {published.rows}")
    yield from _passed(ledger.get(), _present(policy))
    shown = show_version(policy, datasets_dir=settings().datasets_location)
    yield dg.MaterializeResult(
        metadata={
            "is_new": stage is not None,
            "version": shown["version"],
            "path": dg.MetadataValue.path(shown["path"]),
            "rows": report.counts(shown["rows"], name="split"),
            "splits": report.table(split_shares(_present(policy).rows, shown["lineage"]["policy"]["splits"])),
            "manifest": dg.MetadataValue.json(shown),
        }
    )


def _passed(ledger: Ledger, present: Stage) -> Iterator[dg.AssetCheckResult]:
    """Show the checks of a visible version, with what each reader said of it, and whether its splits are as large as asked."""
    # The ledger's JSON has lost the order of the columns.
    read = [{name: row.get(name) for name in READING} for row in readings_of(ledger, present.name, present.version)]
    readings = report.table(pl.DataFrame(read))
    yield dg.AssetCheckResult(check_name=LEAKS, passed=True, metadata={"version": present.version})
    yield dg.AssetCheckResult(check_name=READERS, passed=True, metadata={"version": present.version, "readers": readings})
    rows, asked = present.rows, present.lineage["policy"]["splits"]
    far_off = unlike_asked(rows, asked)
    yield dg.AssetCheckResult(
        check_name=SHARES,
        passed=not far_off,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(far_off) or f"no split is more than {TOLERANCE:.0%} off, or there are too few clips to tell",
        metadata={"version": present.version, "splits": report.table(split_shares(rows, asked))},
    )


def _refused(refusal: PublicationError) -> Iterator[dg.AssetCheckResult]:
    """Show the failed check with all that it found, before the run fails with the one sentence."""
    if refusal.check is not None:
        found = report.table(pl.DataFrame(refusal.found, infer_schema_length=None))
        yield dg.AssetCheckResult(
            check_name=refusal.check,
            passed=False,
            description=str(refusal),
            metadata={"rows": len(refusal.found), "found": found},
        )
