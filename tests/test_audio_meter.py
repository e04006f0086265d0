"""Meter: three or four beats a bar where the spectra say so, nothing where they do not."""

import numpy as np
import pytest

from keeptake.audio.frontend import SAMPLE_RATE_HZ, SHORT_HOP, listen
from keeptake.audio.meter import MIN_BEATS, beat_levels, beat_spectra, beats_per_bar, downbeats

FRAME_RATE_HZ = SAMPLE_RATE_HZ / SHORT_HOP


@pytest.mark.parametrize("in_bar", [3, 4])
@pytest.mark.parametrize("tempo_bpm", [80, 120, 160])
def test_bars_of_three_and_of_four(signals, in_bar, tempo_bpm):
    mel = listen(signals.drum_beat(tempo_bpm, 20, SAMPLE_RATE_HZ, beats_per_bar=in_bar)).mel
    beats_s = np.arange(0, 19.9, 60 / tempo_bpm)
    assert beats_per_bar(beat_spectra(beat_levels(mel, beats_s, frame_rate_hz=FRAME_RATE_HZ))) == in_bar


def test_bare_clicks_have_no_bars(signals):
    mel = listen(signals.click_track(120, 20, SAMPLE_RATE_HZ)).mel
    assert beats_per_bar(beat_spectra(beat_levels(mel, np.arange(0.1, 19.5, 0.5), frame_rate_hz=FRAME_RATE_HZ))) is None


def test_unrelated_beats_and_few_beats_have_no_bars():
    rng = np.random.default_rng(0)
    counted = [beats_per_bar(rng.standard_normal((64, 32))) for _ in range(20)]
    assert counted.count(None) >= 18
    assert beats_per_bar(np.tile(np.eye(4, 32), (3, 1))[: MIN_BEATS - 1]) is None


@pytest.mark.parametrize("first", [0, 1, 2, 3])
def test_bar_begins_where_spectrum_and_bass_change(first):
    strength = np.zeros(32)
    strength[first::4] = 1.0
    spectra = np.repeat(np.random.default_rng(1).standard_normal((9, 32)), 4, axis=0)[4 - first : 36 - first]
    assert downbeats(spectra, strength, beats_in_bar=4) == first
