"""One pass of the network for two answers: what the analysis hears in a take, and where the take lies.

The tagger of the part `style` and the default embedding are the same network over the same mix. Belongs here: keeping the second
answer while the first is asked for. Does not: either answer (`models.py`, `audio/`).
"""

from collections.abc import Iterable, Sequence

import numpy as np

from keeptake.embedding.models import MusicnnEmbedder
from keeptake.embedding.musicnn import TAGS, Musicnn, MusicnnOutput
from keeptake.model_store import ModelStore


class SharedPass:
    """The tagger of the part `style` that also places what it hears.

    Attributes
    ----------
    vector : np.ndarray [shape=(336,), float32] or None
        Of the audio heard last; whoever begins another take sets it to None, since not every take is asked for its style.
    """

    def __init__(self, store: ModelStore) -> None:
        self._embedder = MusicnnEmbedder(Musicnn.load(store, "MSD"))
        self.vector: np.ndarray | None = None

    @property
    def tags(self) -> Sequence[str]:
        """Names of the tags, in order."""
        return TAGS["MSD"]

    def __call__(self, mono_16k: Iterable[np.ndarray]) -> list[MusicnnOutput]:
        """Hear audio, as `Musicnn` does."""
        outputs = []
        for samples in mono_16k:
            output, self.vector = self._embedder.hear(samples)
            outputs.append(output)
        return outputs
