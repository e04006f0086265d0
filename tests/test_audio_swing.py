"""Swing of synthesised drums from straight to dotted; nothing where the off-beat is silent or one of several."""

import numpy as np
import pytest

from keeptake.audio import onsets
from keeptake.audio import swing as swing_module
from keeptake.audio.frontend import SAMPLE_RATE_HZ, SHORT_HOP, listen
from keeptake.audio.rhythm import rhythm
from keeptake.audio.swing import swing_ratio

FRAME_RATE_HZ = SAMPLE_RATE_HZ / SHORT_HOP


def heard(samples, beats_s=None):
    """Swing at known beats, or at those that the rhythm part tracks."""
    mel = listen(samples.astype(np.float32)).mel
    if beats_s is not None:
        return swing_ratio(onsets.onset_envelope(mel), beats_s, frame_rate_hz=FRAME_RATE_HZ)
    length_s = samples.size / SAMPLE_RATE_HZ
    values, _ = rhythm(mel, np.zeros((200, 12)), frame_rate_hz=FRAME_RATE_HZ, chroma_rate_hz=5.0, duration_s=length_s)
    return values["swing_ratio"]


def hits(places, *, beats=32, tempo_bpm=100, levels=None):
    """Bursts of noise on the given places of every beat, the first the loudest; with the beats' times."""
    rng, period_s = np.random.default_rng(3), 60 / tempo_bpm
    burst = rng.standard_normal(1500) * np.exp(-np.arange(1500) / 250)
    out = np.zeros(round((beats + 1) * period_s * SAMPLE_RATE_HZ))
    for beat in range(beats):
        for place, level in zip(places, levels or [0.3] + [0.15] * (len(places) - 1), strict=True):
            at = round((beat + place) * period_s * SAMPLE_RATE_HZ)
            out[at : at + burst.size] += level * burst
    return out, np.arange(beats) * period_s


@pytest.mark.parametrize("ratio", [1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0])
@pytest.mark.parametrize("tempo_bpm", [84, 100, 126, 150])
def test_ratio_of_swung_drums(signals, tempo_bpm, ratio):
    drums = signals.drum_beat(tempo_bpm, 20, SAMPLE_RATE_HZ, swing=2 * ratio / (1 + ratio) - 1)
    assert heard(drums) == pytest.approx(ratio, rel=0.06)


@pytest.mark.parametrize("seed", range(3))
def test_ratio_under_noise_and_loose_playing(seed):
    rng = np.random.default_rng(seed)
    places, period_s = 2 / 3, 0.6
    burst = rng.standard_normal(1500) * np.exp(-np.arange(1500) / 250)
    out = 0.003 * rng.standard_normal(round(25 * SAMPLE_RATE_HZ))
    for beat in range(38):
        for place, level in ((0.0, 0.3), (places, 0.15)):
            at = round(((beat + place) * period_s + max(0, 0.05 + 0.008 * rng.standard_normal())) * SAMPLE_RATE_HZ)
            out[at : at + burst.size] += level * burst
    assert heard(out, 0.05 + np.arange(38) * period_s) == pytest.approx(2.0, rel=0.1)


def test_beats_alone_have_no_swing(signals):
    assert heard(signals.click_track(120, 20, SAMPLE_RATE_HZ)) is None
    assert heard(*hits((0.0,))) is None


def test_straight_sixteenths_are_straight():
    assert heard(*hits((0, 0.25, 0.5, 0.75))) == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize(
    "places",
    [(0, 1 / 3, 2 / 3), (0, 0.25, 0.75), (0, 1 / 3, 0.5, 5 / 6)],
    ids=["triplets", "sixteenths without an eighth", "swing heard at half its tempo"],
)
def test_where_the_second_eighth_is_open_there_is_no_ratio(places):
    assert heard(*hits(places)) is None


def test_control_without_rivals_triplets_swing(monkeypatch):
    monkeypatch.setattr(swing_module, "RIVAL_SHARE", np.inf)
    assert heard(*hits((0, 1 / 3, 2 / 3))) == pytest.approx(2, rel=0.1)


def test_few_beats_are_not_enough():
    samples, beats_s = hits((0.0, 0.5), beats=20)
    assert heard(samples, beats_s) == pytest.approx(1, rel=0.05)
    assert heard(samples, beats_s[:8]) is None
    assert heard(samples, beats_s[:0]) is None
