"""The published version: Parquet, JSONL, CSV, trainer formats, card, manifest.

The first three write into the folder that `curated_dataset` staged; the last proves it with the trainers' readers and makes it
visible by one rename. Where nothing is staged, since the visible version says the same, they say that nothing was to be written.
"""

from collections.abc import Callable, Iterator

import dagster as dg
import polars as pl

from assets import report
from assets.partitions import by_policy
from keeptake.curation.building import Stage, staged, write_csv, write_jsonl, write_parquet
from keeptake.curation.publish import LEAKS, READERS, publish_staged
from keeptake.datasets import show_version
from keeptake.errors import PublicationError
from keeptake.settings import settings
from resources.ledger import LedgerResource


def _write(policy: str, write: Callable[[Stage], None]) -> dg.MaterializeResult[None]:
    stage = staged(settings().datasets_location, policy)
    if stage is None:
        shown = show_version(policy, datasets_dir=settings().datasets_location)  # says what to do where there is none either
        return dg.MaterializeResult(metadata={"written": f"nothing: no version is staged beside {shown['version']}"})
    write(stage)
    files = sorted(path.relative_to(stage.folder).as_posix() for path in stage.folder.rglob("*") if path.is_file())
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": stage.rows.height,
            "version": stage.version,
            "files": len(files),
            "dagster/column_schema": report.schema_of_frame(stage.rows),
            "examples": report.table(stage.rows.head(5)),
        }
    )


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
        dg.AssetCheckSpec(LEAKS, asset="dataset_manifest", blocking=True, description="Nothing stands in two splits."),
        dg.AssetCheckSpec(READERS, asset="dataset_manifest", blocking=True, description="Each reader reads each row."),
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
            published = publish_staged(ledger.get(), stage)
        except PublicationError as refusal:
            yield from _refused(refusal)
            raise
        context.log.info(f"published {policy} {published.version}: {published.rows}")
    shown = show_version(policy, datasets_dir=settings().datasets_location)
    yield dg.AssetCheckResult(check_name=LEAKS, passed=True, metadata={"version": shown["version"]})
    readings = pl.DataFrame(published.gate) if stage is not None else pl.DataFrame()
    yield dg.AssetCheckResult(
        check_name=READERS, passed=True, metadata={"version": shown["version"], "readers": report.table(readings)}
    )
    yield dg.MaterializeResult(
        metadata={
            "is_new": stage is not None,
            "version": shown["version"],
            "path": dg.MetadataValue.path(shown["path"]),
            "rows": report.counts(shown["rows"], name="split"),
            "manifest": dg.MetadataValue.json(shown),
        }
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
