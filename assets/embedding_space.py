"""The versioned space that similarity is measured in: a scaler fitted on the corpus, and the index over scaled vectors."""

import dagster as dg
import polars as pl

from assets import report, takes
from keeptake.audio_store import AudioStore
from keeptake.embedding import DEFAULT_MODEL
from keeptake.embedding.further import by_each_model
from keeptake.embedding.models import version_of
from keeptake.examples import draw_thumbnails
from keeptake.ledger import overviews, tables
from keeptake.ledger.connection import Ledger
from keeptake.ledger.embeddings import SpaceReport, renew_space
from keeptake.settings import listed, settings
from resources.audio_store import AudioStoreResource
from resources.ledger import LedgerResource
from resources.model_store import ModelStoreResource


@dg.asset(
    group_name="embedding",
    kinds={"python", "postgres"},
    owners=["team:ml"],
    deps=["embeddings"],
    metadata={
        "dagster/column_schema": report.schema_of(tables.embedding_scalers),
        "dagster/table_name": "public.embedding_scalers",
    },
)
def embedding_space(
    ledger: LedgerResource, audio_store: AudioStoreResource, model_store: ModelStoreResource
) -> dg.MaterializeResult[None]:
    """The current scaler with every vector scaled by it; fitted anew, as a new version, where the corpus has outgrown it."""

    def renew(model: str) -> SpaceReport:
        return renew_space(ledger.get(), model, version_of(model, model_store.get()))

    spaces, kept_from = by_each_model(listed(settings().embedding_models), renew)
    done, scaler = spaces[DEFAULT_MODEL], spaces[DEFAULT_MODEL].scaler
    return dg.MaterializeResult(
        metadata={
            "vectors": done.vectors,  # no row count: the table that is named has a row a scaler
            "added_in_this_run": done.added,
            "is_renewed_in_this_run": done.is_renewed,
            "scaler_version": scaler.version if scaler else "too few vectors for a space",
            "fitted_on": scaler.fitted_on if scaler else 0,
            "spaces": report.table(_table(spaces, kept_from)),
            "neighbours": _neighbours(ledger.get(), audio_store.get(), done),
        }
    )


def _table(spaces: dict[str, SpaceReport], kept_from: dict[str, str]) -> pl.DataFrame:
    rows = [
        {
            "model": model,
            "scaler_version": done.scaler.version if done.scaler else None,
            "vectors": done.vectors,
            "added_in_this_run": done.added,
            "is_renewed_in_this_run": done.is_renewed,
            "remark": _remark(done),
        }
        for model, done in spaces.items()
    ]
    return pl.DataFrame([*rows, *({"model": model, "remark": why} for model, why in kept_from.items())], infer_schema_length=None)


def _remark(done: SpaceReport) -> str:
    if done.is_outdated and done.scaler:
        return f"of the model's version {done.scaler.model_version}: the present one takes over when it has placed half as many"
    return "" if done.scaler else "too few vectors for a space"


def _neighbours(ledger: Ledger, store: AudioStore, done: SpaceReport) -> dg.MarkdownMetadataValue:
    found = overviews.neighbours_of_examples(ledger, done.scaler)
    files = takes.files_of(found)
    drawn = draw_thumbnails(store, files, is_idle=not done.added)
    shown = takes.Shown(overviews.takes_by_audio(ledger, files), drawn, store, takes.open_api(settings()))
    return takes.neighbours(found, shown)
