"""Attacks: the envelope does not know the gain, and picked onsets are where clicks were put."""

import numpy as np
import pytest

from keeptake.audio.frontend import SAMPLE_RATE_HZ, SHORT_HOP, listen
from keeptake.audio.onsets import is_silent, onset_envelope, onset_times

FRAME_RATE_HZ = SAMPLE_RATE_HZ / SHORT_HOP


@pytest.mark.parametrize("tempo_bpm", [60, 97, 180])
def test_onsets_are_where_clicks_are(signals, tempo_bpm):
    envelope = onset_envelope(listen(signals.click_track(tempo_bpm, 10, SAMPLE_RATE_HZ)).mel)
    expected = np.arange(0.1, 9.95, 60 / tempo_bpm)
    times = onset_times(envelope, frame_rate_hz=FRAME_RATE_HZ)
    assert times.shape == expected.shape
    assert np.abs(times - expected).max() < 0.02


def test_gain_moves_nothing(signals):
    beat = signals.drum_beat(120, 6, SAMPLE_RATE_HZ)
    loud, quiet = (onset_envelope(listen(gain * beat).mel) for gain in (np.float32(1), np.float32(0.05)))
    np.testing.assert_allclose(quiet, loud, rtol=1e-3, atol=1e-2)


def test_vibrato_is_no_row_of_onsets(signals):
    """The maximum filter's purpose: a wavering tone must rise less than a quarter of what it would without the filter."""
    t = signals.time_s(6, SAMPLE_RATE_HZ)
    wavering = 0.4 * np.sin(2 * np.pi * 880 * t + 6 * np.sin(2 * np.pi * 6 * t)).astype(np.float32)
    mel = listen(wavering.astype(np.float32)).mel[20:-20]
    magnitude = np.sqrt(mel)
    level = np.log1p(1e3 * magnitude / np.percentile(magnitude.max(axis=1), 95))
    unfiltered = np.maximum(level[2:] - level[:-2], 0).sum(axis=1)
    assert onset_envelope(mel)[2:].mean() < 0.25 * unfiltered.mean()


def test_silence_is_silent_and_a_whisper_is_not(signals):
    assert is_silent(listen(np.zeros(SAMPLE_RATE_HZ, np.float32)).mel)
    assert is_silent(np.zeros((0, 128), np.float32))
    assert not is_silent(listen(signals.sine(440, 1, SAMPLE_RATE_HZ, amplitude=0.001)).mel)


def test_too_few_frames_have_no_onsets():
    assert onset_times(np.ones(2), frame_rate_hz=FRAME_RATE_HZ).size == 0
