"""Meter: three or four beats a bar where the spectra say so, nothing where they do not."""

import numpy as np
import pytest

from keeptake.audio.frontend import SAMPLE_RATE_HZ, SHORT_HOP, listen
from keeptake.audio.meter import MIN_BEATS, beat_levels, beat_spectra, beats_per_bar, first_downbeat, harmonic_change, low_attack

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
def test_bar_begins_where_harmony_changes_and_bass_attacks(first):
    rng = np.random.default_rng(first)
    beats_s = np.arange(33) * 0.5
    chords = np.eye(12)[rng.permutation(12)]
    bar = (np.arange(0, 17, 0.1) / 0.5 - first + 4).astype(int) // 4
    change = harmonic_change(chords[bar], beats_s, chroma_rate_hz=10.0)
    flat = np.zeros(32)
    kick = (np.arange(32) % 4 == first).astype(float)
    assert first_downbeat(change, flat, beats_in_bar=4) == first
    assert first_downbeat(flat, kick, beats_in_bar=4) == first
    assert first_downbeat(change, kick, beats_in_bar=4) == first


def test_held_chord_does_not_change():
    chroma = np.tile(np.eye(12)[3], (200, 1))
    assert harmonic_change(chroma, np.arange(30) * 0.5, chroma_rate_hz=10.0).max() == 0


def test_bass_is_found_beside_the_beat():
    flux = np.zeros((200, 128))
    flux[[18, 41], :4] = 1.0
    flux[60, 100:] = 9.0
    assert low_attack(flux, np.array([2.0, 4.0, 6.0]), frame_rate_hz=10.0).tolist() == [4.0, 4.0, 0.0]
