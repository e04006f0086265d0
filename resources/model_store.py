"""Model weights as Dagster sees them."""

from pathlib import Path

import dagster as dg

from keeptake.model_store import ModelStore
from keeptake.settings import settings


class ModelStoreResource(dg.ConfigurableResource[ModelStore]):
    """A folder of converted weights, each verified by its hash."""

    folder: str = ""

    def get(self) -> ModelStore:
        """The store in the configured folder."""
        return ModelStore(Path(self.folder) if self.folder else settings().models_location)
