"""Power behind the weighting is that of the standard's recursion, at any rate and in blocks of any length."""

import numpy as np
import pytest
from scipy.signal import sosfilt

from keeptake.audio import k_weighting as k_weighting_module
from keeptake.audio.k_weighting import CHANNEL_WEIGHTS, WeightedPower, impulse_response, k_weighting


def recursion(samples, rate_hz):
    """Power of every step by the recursive filter in double precision."""
    step = round(0.1 * rate_hz)
    weighted = sosfilt(k_weighting(rate_hz), samples.astype(np.float64), axis=0)
    steps = weighted[: len(weighted) // step * step].reshape(-1, step, samples.shape[1])
    return np.mean(steps**2, axis=1) @ np.array(CHANNEL_WEIGHTS.get(samples.shape[1], (1.0,) * samples.shape[1]))


def metered(samples, rate_hz, *, block):
    meter = WeightedPower(rate_hz, samples.shape[1])
    for start in range(0, len(samples), block):
        meter.add(samples[start : start + block])
    return meter.values()


def sounds(rate_hz, channels):
    """Bass, noise, an offset, a pause of digital silence, a lone click."""
    t = np.arange(3 * rate_hz) / rate_hz
    rng = np.random.default_rng(0)
    out = np.stack([0.4 * np.sin(2 * np.pi * (38 + 9 * channel) * t) for channel in range(channels)], axis=1)
    out += 0.05 * rng.standard_normal(out.shape) + 0.1
    out[rate_hz : 2 * rate_hz] = 0
    out[round(1.8 * rate_hz)] = 1
    return out.astype(np.float32)


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("rate_hz", [1000, 2000, 4000, 8000, 22_050, 44_100, 48_000, 96_000])
def test_power_is_the_recursions(rate_hz, channels):
    samples = sounds(rate_hz, channels)
    expected = recursion(samples, rate_hz)
    heard = metered(samples, rate_hz, block=len(samples))
    assert heard.shape == expected.shape
    is_heard = expected > 1e-8  # -80 dB, far below the absolute gate
    assert np.abs(10 * np.log10(heard[is_heard] / expected[is_heard])).max() < 0.03
    assert heard[~is_heard].max(initial=0) < 1.1e-8


@pytest.mark.parametrize("block", [1, 777, 4410, 100_000])
def test_blocks_do_not_matter(block):
    samples = sounds(8000, 2)[: 2000 if block == 1 else None]
    np.testing.assert_allclose(
        metered(samples, 8000, block=block), metered(samples, 8000, block=len(samples)), rtol=1e-4, atol=1e-12
    )


@pytest.mark.parametrize("rate_hz", [1000, 3000, 3363, 3364, 3999, 4000])
def test_every_rate_that_is_accepted_has_a_filter(rate_hz):
    """Below 3,364 Hz the shelf's filter grew without end, and such a file's loudness was not a number."""
    t = np.arange(3 * rate_hz) / rate_hz
    power = metered(np.sin(2 * np.pi * 300 * t).astype(np.float32)[:, None], rate_hz, block=rate_hz)
    assert 10 * np.log10(power[-1]) == pytest.approx(-3, abs=2)  # the plain tone: at 300 Hz the weighting is near nothing


def test_less_than_a_step_has_no_power():
    assert metered(np.ones((799, 2), np.float32), 8000, block=799).shape == (0,)
    assert WeightedPower(8000, 2).values().shape == (0,)


def test_an_offset_is_not_heard():
    offset = np.full((80_000, 1), 0.5, np.float32)
    assert metered(offset, 8000, block=80_000)[10:].max() < 1e-12


def test_control_a_response_cut_short_is_another_filter(monkeypatch):
    samples = sounds(44_100, 1)
    monkeypatch.setattr(k_weighting_module, "LEAST_RESPONSE", 1e-3)
    impulse_response.cache_clear()
    heard = metered(samples, 44_100, block=len(samples))
    impulse_response.cache_clear()
    assert np.abs(10 * np.log10(heard[:9] / recursion(samples, 44_100)[:9])).max() > 0.05
