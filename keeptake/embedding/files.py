"""From a file to its vector: opened, mixed to mono, resampled to the model's rate, placed.

Belongs here: what stands between bytes and an embedder. Does not: which files (`stages.py`), scaling and search (`ledger/`).
"""

from pathlib import Path

import numpy as np
import soxr

from keeptake.audio.frontend import NETWORK_RATE_HZ, even_blocks, for_networks, level_for_networks, mono_mix, whole_mix
from keeptake.custody.decode import open_audio
from keeptake.embedding import DEFAULT_MODEL
from keeptake.embedding.models import Embedder, load_embedder
from keeptake.model_store import ModelStore


def mono_of_file(path: Path, rate_hz: int) -> np.ndarray:
    """Mono mix of an audio file as an embedder takes it, shape (samples,), float32, at the loudness that networks hear.

    Raises
    ------
    AudioRefusedError
        If it does not decode, or its samples are no numbers of a sound.
    """
    with open_audio(path) as audio:
        if rate_hz == NETWORK_RATE_HZ:  # as the analysis hears it, whose pass over the network may be shared
            return for_networks(whole_mix(audio.blocks(), audio.sample_rate_hz))
        mixes = [mono_mix(block) for block in even_blocks(audio.blocks(), audio.sample_rate_hz)]
        mix = np.concatenate(mixes)
        mix -= mix.mean()
        mono: np.ndarray = soxr.resample(mix, audio.sample_rate_hz, rate_hz)
        return level_for_networks(mono, rate_hz)


def embed_file(path: Path, embedder: Embedder) -> np.ndarray:
    """Raw vector, shape (dims,), of one audio file; errors are those of `mono_of_file`."""
    vector: np.ndarray = embedder.embed([mono_of_file(path, embedder.sample_rate_hz)])[0]
    return vector


def vector_of_file(path: Path, models: Path, *, model: str = DEFAULT_MODEL) -> np.ndarray:
    """Raw vector of one file by a model of the store in `models`.

    Raises
    ------
    AudioRefusedError
        As `embed_file`.
    ModelMissingError
        If the model is not on this machine.
    """
    return embed_file(path, load_embedder(model, ModelStore(models)))
