"""What was asked against what is heard, term by term, for every take whose hearing moved."""

import dagster as dg
import polars as pl

from assets import report
from keeptake.embedding.further import joint_model
from keeptake.ledger import tables
from keeptake.ledger.adherence import COMPARED, judge_lagging, takes_in, tempo_scatter, verdict_counts
from keeptake.settings import listed, settings
from resources.ledger import LedgerResource
from resources.model_store import ModelStoreResource


@dg.asset(
    group_name="quality",
    kinds={"polars", "postgres"},
    owners=["team:data"],
    deps=["analyzed_features", "embeddings"],
    metadata={"dagster/column_schema": report.schema_of(tables.adherence), "dagster/table_name": "public.adherence"},
)
def prompt_adherence(
    context: dg.AssetExecutionContext, ledger: LedgerResource, model_store: ModelStoreResource
) -> dg.MaterializeResult[None]:
    """How far each take follows its prompt, by tempo, key, vocals, duration, genre and mood; a reason where none is judged.

    By the cosine of words and sound too, where a configured model knows both.
    """
    from keeptake.formats.figures import asked_against_heard

    joint = joint_model(listed(settings().embedding_models), model_store.get())
    now = judge_lagging(ledger.get(), joint=joint, warn=context.log.warning)
    verdicts, scatter = verdict_counts(ledger.get()), tempo_scatter(ledger.get())
    compared = takes_in(verdicts.filter(pl.col("verdict").is_in(COMPARED), term="tempo"))
    tempi = (scatter[column].to_list() for column in ("asked_bpm", "heard_bpm", "verdict"))
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": takes_in(verdicts),
            "judged_in_this_run": takes_in(now),
            "verdicts": report.table(verdicts),
            "tempo": report.table(scatter.head(20), of=scatter.height),
            "pictures": report.figures({"Tempo asked against heard": asked_against_heard(*tempi, of=compared)}),
        }
    )
