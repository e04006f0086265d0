"""What was asked against what is heard, term by term, for every take whose hearing moved."""

import dagster as dg

from assets import report
from keeptake.embedding.further import joint_model
from keeptake.ledger import tables
from keeptake.ledger.adherence import judge_lagging, tempo_scatter
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
    verdicts = judge_lagging(ledger.get(), joint=joint, warn=context.log.warning)
    scatter = tempo_scatter(ledger.get())
    tempi = (scatter[column].to_list() for column in ("asked_bpm", "heard_bpm", "verdict"))
    return dg.MaterializeResult(
        metadata={
            "judged": int(verdicts["takes"].sum() // max(1, verdicts["term"].n_unique())),
            "verdicts": report.table(verdicts),
            "tempo": report.table(scatter.head(20)),
            "pictures": report.figures({"Tempo asked against heard": asked_against_heard(*tempi)}),
        }
    )
