"""Selection with a named reason for every row left out, duplicates, balance, splits; the chosen audio written aside."""

from typing import Any

import dagster as dg
import polars as pl

from assets import report
from assets.partitions import by_policy
from keeptake.curation.building import Stage
from keeptake.curation.explain import left_out_takes
from keeptake.curation.policy import Policy, load_policy
from keeptake.curation.publish import stage_version
from keeptake.formats.card import pictures
from keeptake.ledger import overviews, tables
from keeptake.ledger.connection import Ledger
from keeptake.progress import to_log
from keeptake.settings import settings
from resources.audio_store import AudioStoreResource
from resources.ledger import LedgerResource


@dg.asset(
    partitions_def=by_policy,
    group_name="published",
    kinds={"polars", "postgres"},
    owners=["team:ml"],
    deps=["quality_scores", "near_duplicates", "prompt_adherence"],
    metadata={"dagster/column_schema": report.schema_of(tables.selections), "dagster/table_name": "public.selections"},
)
def curated_dataset(
    context: dg.AssetExecutionContext, ledger: LedgerResource, audio_store: AudioStoreResource
) -> dg.MaterializeResult[None]:
    """The takes that a policy keeps, in splits that share no group, and the first rule that failed for every other take."""
    policy = load_policy(context.partition_key, settings().policies_dir)
    stage = stage_version(
        ledger.get(),
        policy,
        read_audio=audio_store.get().read,
        datasets_dir=settings().datasets_location,
        pseudonym_key=settings().pseudonym_secret(),
        progress=to_log(context.log.info),
    )
    return dg.MaterializeResult(metadata=_shown(ledger.get(), policy, stage))


def _shown(ledger: Ledger, policy: Policy, stage: Stage) -> dict[str, Any]:
    """What was kept, in takes and in clips, and what was left out and why."""
    takes, count = left_out_takes(ledger, policy, report.MAX_ROWS)
    reasons = overviews.left_out(ledger, policy.name)
    return {
        "dagster/row_count": stage.rows.height,
        "version": stage.version,
        "is_new": stage.is_new,
        "takes_kept": stage.rows["generation_id"].n_unique(),
        "clips": stage.rows.height,
        "takes_left_out": count,
        "left_out": report.table(pl.DataFrame({"reason": list(reasons), "takes": list(reasons.values())})),
        "left_out_takes": report.table(takes),
        "left_out_takes_shown": f"{takes.height} of {count:,} shown; `keeptake explain ID` tells any",
        "pictures": report.figures(pictures(stage.rows, stage.lineage)),
        "examples": report.table(stage.rows.head(10)),
        "policy": dg.MetadataValue.json(policy.model_dump(mode="json")),
    }
