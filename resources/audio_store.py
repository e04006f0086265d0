"""The object store of the audio as Dagster sees it."""

import dagster as dg

from keeptake.audio_store import AudioStore
from keeptake.settings import settings


class AudioStoreResource(dg.ConfigurableResource[AudioStore]):
    """A local folder or a bucket, write-once under the hash of the bytes."""

    url: str = ""

    def get(self) -> AudioStore:
        """The store at the configured address."""
        return AudioStore(self.url or settings().audio_location)
