"""Prompts as vectors."""

import numpy as np
import pytest

from keeptake.embedding.text import embed_text

pytest.importorskip("sentence_transformers", reason="the extra text is not installed")


def test_near_meanings_lie_near():
    vectors = embed_text(["slow sad piano", "melancholic piano ballad", "aggressive techno, 150 bpm"])
    cosines = vectors @ vectors.T

    assert vectors.shape == (3, 384)
    np.testing.assert_allclose(np.diag(cosines), 1, atol=1e-5)
    assert cosines[0, 1] > cosines[0, 2] + 0.2


def test_no_text_no_vector():
    assert embed_text([]).shape == (0, 384)
