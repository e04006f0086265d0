"""The space in which takes are near: raw vectors standardised and decorrelated, by a transform that was fitted on a corpus.

Raw vectors of one network differ in the first place by which channels are loud: each dimension is divided by its deviation, then
the correlated ones are whitened to at most `MOST_DIMS`. A fitted transform has a version and is stored with its vectors; vectors
of different scalers are never compared. Nearness is the cosine.

Belongs here: fitting and applying, on arrays. Does not: where scalers are kept and when they are renewed
(`ledger/embeddings.py`).
"""

from typing import NamedTuple

import numpy as np

MOST_DIMS = 256
# Added to every variance before whitening, in units of one standardised dimension: without it a direction seen in three takes
# weighs as much as one seen in all. Of 0.1 to 8, 2 was best or near it for every vector tried (benchmarks/RESULTS.md).
RIDGE = 2.0
# No single dimension may decide: one that hardly varied in the corpus can be a hundred deviations off in the next take.
MOST_DEVIATIONS = 10.0
FEWEST_VECTORS = 2


class Scaler(NamedTuple):
    """A fitted transform from raw vectors to unit vectors."""

    mean: np.ndarray  # (raw dims,)
    deviation: np.ndarray  # (raw dims,), infinite where a dimension never varied
    projection: np.ndarray | None  # (raw dims, dims); None: standardised only

    @property
    def dims(self) -> int:
        """Length of the scaled vectors."""
        return self.mean.size if self.projection is None else self.projection.shape[1]


def fit_scaler(vectors: np.ndarray, *, most_dims: int | None = MOST_DIMS) -> Scaler:
    """Fit on raw vectors.

    Parameters
    ----------
    vectors : np.ndarray [shape=(n, raw dims)]
        At least `FEWEST_VECTORS`.
    most_dims : int or None
        Dimensions to whiten to, fewer where the vectors span fewer; None: no whitening.

    Raises
    ------
    ValueError
        If there are too few vectors, or a value is not finite.
    """
    if vectors.ndim != 2 or len(vectors) < FEWEST_VECTORS:
        raise ValueError(f"a scaler is fitted on at least {FEWEST_VECTORS} vectors, got shape {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise ValueError("vectors hold values that are not finite")
    exact = vectors.astype(np.float64)
    mean, deviation = exact.mean(axis=0), exact.std(axis=0)
    deviation = np.where(deviation > 1e-6 * (1 + np.abs(mean)), deviation, np.inf)
    projection = None
    if most_dims is not None:
        standardised = _standardise(exact, mean, deviation)
        variance, directions = np.linalg.eigh(standardised.T @ standardised / len(exact))
        order = np.argsort(variance)[::-1][: min(most_dims, len(exact))]
        projection = (directions[:, order] / np.sqrt(np.maximum(variance[order], 0) + RIDGE)).astype(np.float32)
    return Scaler(mean.astype(np.float32), deviation.astype(np.float32), projection)


def apply_scaler(scaler: Scaler, vectors: np.ndarray) -> np.ndarray:
    """Scale raw vectors to unit length.

    Parameters
    ----------
    vectors : np.ndarray [shape=(n, raw dims)]

    Returns
    -------
    np.ndarray [shape=(n, dims), float32]
        Of length 1; of length 0 for a vector that is exactly the corpus's mean.

    Raises
    ------
    ValueError
        If the vectors are of another length than those that the scaler was fitted on.
    """
    if vectors.ndim != 2 or vectors.shape[1] != scaler.mean.size:
        raise ValueError(f"this scaler takes vectors of {scaler.mean.size} dimensions, got shape {vectors.shape}")
    scaled = _standardise(vectors, scaler.mean, scaler.deviation)
    if scaler.projection is not None:
        scaled = scaled @ scaler.projection
    length = np.linalg.norm(scaled, axis=1, keepdims=True)
    unit: np.ndarray = np.divide(scaled, length, out=np.zeros_like(scaled), where=length > 0)
    return unit.astype(np.float32)


def _standardise(vectors: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    standardised: np.ndarray = np.clip((vectors - mean) / deviation, -MOST_DEVIATIONS, MOST_DEVIATIONS)
    return standardised
