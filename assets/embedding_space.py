"""The versioned space that similarity is measured in: a scaler fitted on the corpus, and the index over scaled vectors."""

import dagster as dg

from assets import report, takes
from keeptake.audio_store import AudioStore
from keeptake.embedding.models import DEFAULT_MODEL, version_of
from keeptake.examples import draw_thumbnails
from keeptake.ledger import overviews, tables
from keeptake.ledger.connection import Ledger
from keeptake.ledger.embeddings import SpaceReport, renew_space
from keeptake.settings import settings
from resources.audio_store import AudioStoreResource
from resources.ledger import LedgerResource


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
def embedding_space(ledger: LedgerResource, audio_store: AudioStoreResource) -> dg.MaterializeResult[None]:
    """The current scaler with every vector scaled by it; fitted anew, as a new version, where the corpus has outgrown it."""
    done = renew_space(ledger.get(), DEFAULT_MODEL, version_of(DEFAULT_MODEL))
    scaler = done.scaler
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": done.vectors,
            "added": done.added,
            "is_renewed": done.is_renewed,
            "scaler_version": scaler.version if scaler else "too few vectors for a space",
            "fitted_on": scaler.fitted_on if scaler else 0,
            "neighbours": _neighbours(ledger.get(), audio_store.get(), done),
        }
    )


def _neighbours(ledger: Ledger, store: AudioStore, done: SpaceReport) -> dg.MarkdownMetadataValue:
    found = overviews.neighbours_of_examples(ledger, done.scaler.id if done.scaler else 0)
    files = takes.files_of(found)
    drawn = draw_thumbnails(store, files) if done.added else {}
    shown = takes.Shown(overviews.takes_by_audio(ledger, files), drawn, store, takes.open_api(settings()))
    return takes.neighbours(found, shown)
