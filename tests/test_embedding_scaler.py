"""Standardised, whitened, of unit length, and never mixed."""

import numpy as np
import pytest

from keeptake.embedding.scaler import MOST_DEVIATIONS, RIDGE, apply_scaler, fit_scaler


@pytest.fixture
def corpus():
    """Two factors seen through ten dimensions of very unequal size."""
    generator = np.random.default_rng(0)
    mixing = generator.standard_normal((2, 10)) * np.geomspace(1e-3, 1e3, 10)
    return (generator.standard_normal((500, 2)) @ mixing + 1e-4 * generator.standard_normal((500, 10))).astype(np.float32)


def test_standardising_makes_all_dimensions_alike(corpus):
    scaler = fit_scaler(corpus, most_dims=None)
    standardised = (corpus - scaler.mean) / scaler.deviation

    np.testing.assert_allclose(standardised.std(axis=0), 1, atol=1e-3)
    assert scaler.dims == 10


def test_whitening_makes_directions_alike_down_to_the_ridge(corpus):
    scaler = fit_scaler(corpus)
    whitened = ((corpus - scaler.mean) / scaler.deviation) @ scaler.projection
    covariance = np.cov(whitened.T, bias=True)
    variance = np.linalg.eigvalsh(np.corrcoef(corpus.T))[::-1]

    np.testing.assert_allclose(covariance, np.diag(variance / (variance + RIDGE)), atol=1e-3)


def test_dimensions_are_at_most_those_asked_for_and_those_there_are(corpus):
    assert fit_scaler(corpus, most_dims=4).dims == 4
    assert fit_scaler(corpus[:3]).dims == 3
    assert fit_scaler(corpus).dims == 10


def test_scaled_vectors_have_unit_length(corpus):
    np.testing.assert_allclose(np.linalg.norm(apply_scaler(fit_scaler(corpus), corpus), axis=1), 1, atol=1e-5)


def test_dimension_that_never_varied_says_nothing(corpus):
    constant = np.concatenate([corpus, np.full((500, 1), 7, np.float32)], axis=1)
    other = constant.copy()
    other[:, -1] = 1e6
    scaler = fit_scaler(constant)

    np.testing.assert_array_equal(apply_scaler(scaler, other), apply_scaler(scaler, constant))


def test_no_single_dimension_decides(corpus):
    scaler = fit_scaler(corpus, most_dims=None)
    outlier = corpus[0].copy()
    outlier[3] += 1e9
    scaled = apply_scaler(scaler, outlier[None])[0]
    rest = (np.delete(corpus[0], 3) - np.delete(scaler.mean, 3)) / np.delete(scaler.deviation, 3)

    assert scaled[3] == pytest.approx(MOST_DEVIATIONS / np.hypot(MOST_DEVIATIONS, np.linalg.norm(rest)), rel=1e-3)


def test_mean_of_the_corpus_has_no_direction(corpus):
    scaler = fit_scaler(corpus)

    assert not apply_scaler(scaler, scaler.mean[None]).any()


def test_order_of_the_corpus_does_not_matter(corpus):
    one, other = fit_scaler(corpus), fit_scaler(corpus[::-1])

    np.testing.assert_allclose(
        apply_scaler(one, corpus) @ apply_scaler(one, corpus).T,
        apply_scaler(other, corpus) @ apply_scaler(other, corpus).T,
        atol=1e-3,
    )


def test_control_raw_cosines_hear_the_loudest_dimension_alone(corpus):
    """Why there is a scaler: raw, takes that differ in all but the largest dimension are the same."""
    changed = corpus.copy()
    changed[:, :7] = corpus[::-1, :7]
    raw = np.sum(corpus * changed, axis=1) / np.linalg.norm(corpus, axis=1) / np.linalg.norm(changed, axis=1)
    scaler = fit_scaler(corpus)
    scaled = np.sum(apply_scaler(scaler, corpus) * apply_scaler(scaler, changed), axis=1)

    assert np.median(raw) > 0.999
    assert np.median(scaled) < 0.9


@pytest.mark.parametrize("vectors", [np.zeros((1, 4)), np.zeros((0, 4)), np.zeros(4), np.full((3, 2), np.nan)])
def test_what_cannot_be_fitted_is_refused(vectors):
    with pytest.raises(ValueError, match=r"fitted on at least 2|not finite"):
        fit_scaler(vectors)


def test_vectors_of_another_model_are_refused(corpus):
    with pytest.raises(ValueError, match=r"takes vectors of 10 dimensions, got shape \(1, 4\)"):
        apply_scaler(fit_scaler(corpus), np.zeros((1, 4)))
