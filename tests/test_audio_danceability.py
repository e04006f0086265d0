"""Scaling exponents of noises whose exponent is known; danceability of a pulse against what has none."""

import numpy as np
import pytest

from keeptake.audio.analyze import analyze
from keeptake.audio.danceability import FRAME_S, MOST, danceability, frame_levels, scaling_exponents

RATE_HZ = 22_050


def coloured(slope, values=60_000, seed=0):
    """Noise whose power falls with the given power of frequency: 0 white, 1 pink, 2 brown."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(values))
    spectrum[1:] /= np.arange(1, spectrum.size) ** (slope / 2)
    spectrum[0] = 0
    return np.fft.irfft(spectrum, values)


def moved(levels):
    """A steady noise with the given levels, one a frame."""
    samples = round(FRAME_S * RATE_HZ)
    carrier = np.sign(np.random.default_rng(7).standard_normal(levels.size * samples))  # of constant power
    return (np.repeat(levels, samples) * carrier).astype(np.float32)


@pytest.mark.parametrize(("slope", "exponent"), [(0, 0.5), (1, 1.0), (2, 1.5)])
def test_exponents_of_coloured_noise(slope, exponent):
    found = [scaling_exponents(coloured(slope, seed=seed), frame_rate_hz=100).mean() for seed in range(3)]
    assert np.mean(found) == pytest.approx(exponent, abs=0.04)


def test_a_level_is_read_as_it_was_made():
    levels = 0.3 + 0.1 * np.sin(np.arange(500) / 9)
    assert frame_levels(moved(levels), sample_rate_hz=RATE_HZ) == pytest.approx(levels, rel=1e-5)


@pytest.mark.parametrize("tempo_bpm", [100, 124, 170])
def test_a_steady_beat_is_danceable_and_a_wandering_level_is_not(signals, tempo_bpm):
    beat = danceability(signals.drum_beat(tempo_bpm, 30.0, RATE_HZ).astype(np.float32), sample_rate_hz=RATE_HZ)
    wander = coloured(2, 3000)
    wandering = danceability(moved(0.5 + 0.4 * wander / np.abs(wander).max()), sample_rate_hz=RATE_HZ)
    flicker = danceability(moved(0.5 + 0.05 * coloured(0, 3000)), sample_rate_hz=RATE_HZ)
    assert beat > flicker == pytest.approx(2.0, rel=0.1)
    assert wandering == pytest.approx(1 / 1.5, rel=0.15)


def test_control_the_beats_frames_in_another_order_are_noise(signals):
    levels = frame_levels(signals.drum_beat(124, 30.0, RATE_HZ).astype(np.float32), sample_rate_hz=RATE_HZ)
    in_order = scaling_exponents(levels, frame_rate_hz=100).mean()
    shuffled = scaling_exponents(np.random.default_rng(1).permutation(levels), frame_rate_hz=100).mean()
    assert in_order < 0.4 and shuffled == pytest.approx(0.5, abs=0.1)


def test_gain_does_not_matter(signals):
    drums = signals.drum_beat(110, 20.0, RATE_HZ).astype(np.float32)
    assert danceability(0.2 * drums, sample_rate_hz=RATE_HZ) == pytest.approx(
        danceability(drums, sample_rate_hz=RATE_HZ), rel=1e-4
    )


@pytest.mark.parametrize("samples", [np.zeros(0), np.zeros(30 * RATE_HZ), np.full(30 * RATE_HZ, 0.5), np.ones(5 * RATE_HZ)])
def test_what_does_not_move_or_is_too_short_has_none(samples):
    assert danceability(samples.astype(np.float32), sample_rate_hz=RATE_HZ) is None


def test_only_what_has_a_pulse_is_given_one(signals):
    beat, tone = signals.drum_beat(124, 20.0, RATE_HZ), signals.sine(440, 20.0, RATE_HZ)
    heard = [analyze([samples.astype(np.float32)], RATE_HZ, parts=["rhythm"])["rhythm"] for samples in (beat, tone)]
    assert 0 < heard[0].values["danceability"] <= MOST
    assert heard[1].status == "null" and heard[1].values == {}
