"""From a file to its vector: opened, mixed to mono, resampled to the model's rate, placed.

Belongs here: what stands between bytes and an embedder. Does not: which files (`stages.py`), scaling and search (`ledger/`).
"""

from pathlib import Path

import numpy as np
import soxr

from keeptake.audio.samples import check_samples
from keeptake.custody.decode import decode
from keeptake.embedding.models import DEFAULT_MODEL, Embedder, load_embedder
from keeptake.model_store import ModelStore


def embed_file(path: Path, embedder: Embedder) -> np.ndarray:
    """Raw vector, shape (dims,), of one audio file.

    Raises
    ------
    AudioRefusedError
        If it does not decode, or its samples are no numbers of a sound.
    """
    samples, sample_rate_hz = decode(path)
    check_samples(samples)
    vector: np.ndarray = embedder.embed([soxr.resample(samples.mean(axis=1), sample_rate_hz, embedder.sample_rate_hz)])[0]
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
