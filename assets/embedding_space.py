"""The versioned space that similarity is measured in: a scaler fitted on the corpus, and the index over scaled vectors."""

import dagster as dg

from assets import report
from keeptake.embedding.models import DEFAULT_MODEL, version_of
from keeptake.ledger import overviews, tables
from keeptake.ledger.embeddings import renew_space
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
def embedding_space(ledger: LedgerResource) -> dg.MaterializeResult[None]:
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
            "neighbours": report.table(overviews.neighbours_of_examples(ledger.get(), scaler.id if scaler else 0)),
        }
    )
