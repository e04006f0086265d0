"""One vector an audio file and model."""

from collections import Counter
from collections.abc import Iterator

import dagster as dg

from assets import report
from assets.partitions import capture_day, check_of_each
from keeptake.embedding import DEFAULT_MODEL, PROMPTS
from keeptake.embedding.further import by_each_model
from keeptake.embedding.models import version_of
from keeptake.ledger import overviews, tables
from keeptake.progress import to_log
from keeptake.settings import listed, settings
from keeptake.stage import StageReport
from keeptake.stages import embed_day, embed_prompts_of_day, way_of_placing
from resources.audio_store import AudioStoreResource
from resources.compute import ComputeResource
from resources.ledger import LedgerResource
from resources.model_store import ModelStoreResource

COMPLETE = "every_model_placed_each_take"


@dg.asset(
    partitions_def=capture_day,
    group_name="embedding",
    kinds={"python", "postgres"},
    owners=["team:ml"],
    deps=["analyzed_features"],
    metadata={"dagster/column_schema": report.schema_of(tables.embeddings), "dagster/table_name": "public.embeddings"},
    check_specs=[check_of_each(capture_day, "embeddings", COMPLETE, "Each configured model placed each take.")],
)
def embeddings(
    context: dg.AssetExecutionContext,
    ledger: LedgerResource,
    audio_store: AudioStoreResource,
    compute: ComputeResource,
    model_store: ModelStoreResource,
) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[None]]:
    """One raw vector for every audio file captured on this day, by the default model and each further one that is configured."""
    day, models, log = context.partition_key, model_store.get(), to_log(context.log.info)

    def place(model: str) -> StageReport:
        version = version_of(model, models)
        if model == PROMPTS:
            return embed_prompts_of_day(ledger.get(), day, compute.limits(), version=version, progress=log)
        way = way_of_placing(audio_store.get().url, models, model)
        pool = compute.pool(way.prepare)
        return embed_day(
            ledger.get(), day, pool, compute.limits(), model=model, version=version, load_here=way.load_here, progress=log
        )

    done, kept_from = by_each_model(listed(settings().embedding_models), place)
    vectors, of_default = overviews.embedded_of_day(ledger.get(), day), done[DEFAULT_MODEL]
    yield _completeness(done, kept_from)
    yield dg.MaterializeResult(
        metadata={
            "dagster/partition_row_count": int(vectors["vectors"].sum()),
            "embedded": of_default.done,
            "remaining": of_default.remaining,
            "failed_in_this_run": report.counts(dict(of_default.failed)),
            "by_model": report.table(vectors),
        }
    )


def _completeness(done: dict[str, StageReport], kept_from: dict[str, str]) -> dg.AssetCheckResult:
    missed = {model: +Counter({**each.failed, "left for want of time": each.remaining}) for model, each in done.items()}
    wrong = [f"{model}: {rows} {why}" for model, reasons in missed.items() for why, rows in reasons.items()]
    wrong += [f"{model}: {why}" for model, why in kept_from.items()]
    return dg.AssetCheckResult(
        check_name=COMPLETE,
        passed=not wrong,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(wrong) or "every take of the day has its vectors",
    )
