"""Beats: where they were put, at steady and at changing tempo, and as librosa's tracker finds them."""

import librosa
import mir_eval
import numpy as np
import pytest

from keeptake.audio.beats import track_beats
from keeptake.audio.frontend import SAMPLE_RATE_HZ, SHORT_HOP, listen
from keeptake.audio.onsets import onset_envelope

FRAME_RATE_HZ = SAMPLE_RATE_HZ / SHORT_HOP


def tracked(samples: np.ndarray, period_s: float) -> np.ndarray:
    envelope = onset_envelope(listen(samples).mel)
    return track_beats(envelope, np.full(envelope.size, period_s), frame_rate_hz=FRAME_RATE_HZ)


@pytest.mark.parametrize("tempo_bpm", [60, 93, 128, 180])
@pytest.mark.parametrize("first_s", [0.0, 0.27])
def test_beats_are_on_the_clicks(signals, tempo_bpm, first_s):
    beats_s = tracked(signals.click_track(tempo_bpm, 12, SAMPLE_RATE_HZ, first_s=first_s), 60 / tempo_bpm)
    expected = np.arange(first_s, 11.9, 60 / tempo_bpm)
    assert abs(beats_s.size - expected.size) <= 1  # one more may follow the last click
    assert np.percentile(np.abs(expected[:, None] - beats_s).min(axis=1), 95) < 0.015


def test_period_a_little_off_still_finds_them(signals):
    beats_s = tracked(signals.click_track(120, 12, SAMPLE_RATE_HZ), 0.52)
    assert np.diff(beats_s) == pytest.approx(0.5, abs=0.02)


def test_period_that_follows_a_change(signals):
    samples = np.concatenate([signals.click_track(bpm, 10, SAMPLE_RATE_HZ, first_s=0.0) for bpm in (100, 125)])
    envelope = onset_envelope(listen(samples).mel)
    period_s = np.where(np.arange(envelope.size) / FRAME_RATE_HZ < 10, 60 / 100, 60 / 125)
    beats_s = track_beats(envelope, period_s, frame_rate_hz=FRAME_RATE_HZ)
    expected = np.concatenate([np.arange(0, 9.95, 0.6), 10 + np.arange(0, 9.95, 0.48)])
    assert mir_eval.beat.f_measure(expected, beats_s) > 0.95


def test_agrees_with_librosa(signals):
    samples = signals.drum_beat(118.3, 20, SAMPLE_RATE_HZ)
    ours = tracked(samples, 60 / 118.3)
    _, theirs = librosa.beat.beat_track(y=samples, sr=SAMPLE_RATE_HZ, hop_length=SHORT_HOP, bpm=118.3, units="time")
    assert mir_eval.beat.f_measure(theirs, ours) > 0.95


def test_flat_envelope_has_no_beats():
    assert track_beats(np.zeros(500), np.full(500, 0.5), frame_rate_hz=FRAME_RATE_HZ).size == 0
