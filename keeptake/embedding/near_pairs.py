"""Pairs of vectors that point the same way, found by an index and proved one by one.

A table files each vector under the signs of its projections on `BITS` random directions; two vectors at an angle t share a
place with probability (1 - t / pi) ** BITS [1]_, and only vectors that share one in some table are compared, exactly. At the
cosine that curation asks for, 0.95, all `TABLES` miss a pair once in 25,000, and a closer pair more rarely still. Whether a pair
is found depends on its two vectors alone, so that a look at a part of a corpus finds just what a look at the whole finds in it.

Belongs here: arrays. Does not: what a near pair means (`curation/leaks.py`), search for one query (`ledger/similarity.py`).

.. [1] M. Charikar, "Similarity estimation techniques from rounding algorithms", STOC 2002.
"""

from collections.abc import Iterator

import numpy as np

BITS = 18
TABLES = 64
PROVED_AT_ONCE = 1 << 16


def near_pairs(vectors: np.ndarray, *, least: float) -> np.ndarray:
    """Find pairs of a cosine of at least `least`.

    Parameters
    ----------
    vectors : np.ndarray [shape=(n, dims)]
        Of any length; a vector of length 0 is near none.
    least : float
        In [0.9, 1]: what is less alike shares a place too rarely to be found.

    Returns
    -------
    np.ndarray [shape=(pairs, 2), int64]
        Row numbers, the lesser first; each pair once, sorted.

    Raises
    ------
    ValueError
        If `least` is below 0.9.
    """
    if least < 0.9:
        raise ValueError(f"near pairs are found from a cosine of 0.9 on, got {least}")
    lengths = np.linalg.norm(vectors, axis=1)
    rows = np.flatnonzero(lengths > 0)
    unit = np.asarray(vectors[rows] / lengths[rows, None], np.float32)
    random = np.random.default_rng(0)  # the same directions in every process: see above
    found = [np.zeros((0, 2), np.int64)]
    for _ in range(TABLES if rows.size else 0):
        directions = random.standard_normal((unit.shape[1], BITS), dtype=np.float32)
        places = (unit @ directions > 0) @ (1 << np.arange(BITS))
        found += [_proved(unit, pairs, least) for pairs in _sharing_a_place(places)]
    return np.unique(rows[np.concatenate(found)], axis=0)


def _sharing_a_place(places: np.ndarray) -> Iterator[np.ndarray]:
    """All pairs of rows with the same place, the lesser row first, in blocks."""
    order = np.argsort(places, kind="stable")
    ends = np.searchsorted(places[order], places[order], side="right")
    partners = ends - np.arange(len(order)) - 1  # those that follow each in its place
    counted = np.concatenate([[0], np.cumsum(partners)])
    for start in range(0, int(counted[-1]), PROVED_AT_ONCE):
        pair = np.arange(start, min(start + PROVED_AT_ONCE, int(counted[-1])))
        first = np.searchsorted(counted, pair, side="right") - 1
        yield np.stack([order[first], order[first + 1 + pair - counted[first]]], axis=1)


def _proved(unit: np.ndarray, pairs: np.ndarray, least: float) -> np.ndarray:
    cosine = np.einsum("ij,ij->i", unit[pairs[:, 0]], unit[pairs[:, 1]])
    proved: np.ndarray = pairs[cosine >= least]
    return proved
