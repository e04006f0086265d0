"""Near pairs against all pairs, on crowded vectors with planted twins."""

import numpy as np
import pytest

from keeptake.embedding import near_pairs as module
from keeptake.embedding.near_pairs import near_pairs


def crowded(seed: int, *, count: int = 3000, dims: int = 64) -> np.ndarray:
    """Vectors in 50 clusters, and behind them a twin of every tenth at cosines from 0.94 to 1."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(50, dims))
    vectors = centres[random.integers(0, 50, count)] + random.normal(size=(count, dims))
    twins = turned(vectors[::10], random.uniform(0.94, 1, len(vectors[::10])), random)
    return np.concatenate([vectors, twins * random.uniform(0.1, 9, (len(twins), 1))])


def turned(vectors: np.ndarray, cosine: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Unit vectors at given cosines to others."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    aside = random.normal(size=unit.shape)
    aside -= (aside * unit).sum(axis=1, keepdims=True) * unit
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    return np.asarray(unit * cosine[:, None] + aside * np.sqrt(1 - cosine**2)[:, None])


def all_pairs(vectors: np.ndarray, least: float) -> np.ndarray:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.argwhere(np.triu(unit @ unit.T >= least, k=1))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_all_pairs_find_is_found(seed):
    vectors = crowded(seed)
    expected = all_pairs(vectors, 0.95)
    assert len(expected) > 200
    np.testing.assert_array_equal(near_pairs(vectors, least=0.95), expected)


def test_control_one_table_misses_some(monkeypatch):
    monkeypatch.setattr(module, "TABLES", 1)
    vectors = crowded(1)
    assert len(near_pairs(vectors, least=0.95)) < 0.5 * len(all_pairs(vectors, 0.95))


def test_a_part_tells_the_same_as_the_whole():
    """A leak check that found what selection had missed would block publication for good."""
    vectors = crowded(4)
    part = np.sort(np.random.default_rng(0).permutation(len(vectors))[:1500])
    whole = near_pairs(vectors, least=0.95)
    within = whole[np.isin(whole, part).all(axis=1)]
    np.testing.assert_array_equal(part[near_pairs(vectors[part], least=0.95)], within)


def test_few_compared(monkeypatch):
    compared = []
    monkeypatch.setattr(module, "_proved", lambda unit, pairs, least: compared.append(len(pairs)) or pairs[:0])
    vectors = np.random.default_rng(5).normal(size=(4000, 64))
    near_pairs(vectors, least=0.95)
    assert sum(compared) < 0.01 * 4000 * 3999 / 2


@pytest.mark.parametrize("vectors", [np.zeros((0, 8)), np.zeros((5, 8)), np.ones((1, 8))])
def test_nothing_is_near_nothing(vectors):
    assert near_pairs(vectors, least=0.95).shape == (0, 2)


def test_many_equal_vectors():
    assert len(near_pairs(np.ones((400, 8)), least=0.99)) == 400 * 399 / 2


def test_what_would_be_missed_is_refused():
    with pytest.raises(ValueError, match=r"0\.9 on"):
        near_pairs(np.ones((2, 8)), least=0.5)
