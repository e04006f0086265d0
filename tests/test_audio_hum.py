"""Mains hum under music and noise, and the basses that are none."""

import numpy as np
import pytest

from keeptake.audio import hum as hum_module
from keeptake.audio.frontend import SAMPLE_RATE_HZ, listen
from keeptake.audio.hum import mains_hum

NO_HUM = {"hum_hz": None, "hum_level_dbfs": None, "has_hum": False}
LENGTH_S = 20.0


def heard(samples):
    return mains_hum(listen(samples.astype(np.float32)).long)


def hum(mains_hz, level_dbfs, samples):
    """Fundamental, second, third and fifth harmonic."""
    t = np.arange(samples) / SAMPLE_RATE_HZ
    wave = sum(np.sin(2 * np.pi * mains_hz * k * t + k) / k for k in (1, 2, 3, 5))
    return wave * 10 ** (level_dbfs / 20) / np.sqrt(np.mean(wave**2))


def bass(pitch_hz, *, rest_s=0.0):
    """Eight harmonics, as notes that stop for some time in every second, or without rest a drone."""
    t = np.arange(round(LENGTH_S * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    wave = 0.2 * sum(np.sin(2 * np.pi * pitch_hz * k * t) / k for k in range(1, 9))
    return wave * (np.exp(-(t % 1)) * (t % 1 < 1 - rest_s) if rest_s else 1)


def under(signals, name):
    return {
        "beat": lambda: signals.drum_beat(104, LENGTH_S, SAMPLE_RATE_HZ),
        "chords": lambda: signals.cadence(0, "major", LENGTH_S, SAMPLE_RATE_HZ),
        "low chords": lambda: signals.cadence(-12, "minor", LENGTH_S, SAMPLE_RATE_HZ),
        "song": lambda: signals.song(96, "ABCA", 2, SAMPLE_RATE_HZ),
        "noise": lambda: signals.white_noise(LENGTH_S, SAMPLE_RATE_HZ, amplitude=0.03),
    }[name]()


@pytest.mark.parametrize("level_dbfs", [-50, -40, -30])
@pytest.mark.parametrize("mains_hz", [50.0, 60.0, 49.9])
@pytest.mark.parametrize("name", ["beat", "chords", "low chords", "song", "noise"])
def test_hum_is_found_with_its_level(signals, name, mains_hz, level_dbfs):
    samples = under(signals, name)
    values = heard(samples + hum(mains_hz, level_dbfs, samples.size))
    assert values["hum_hz"] == round(mains_hz)
    assert values["hum_level_dbfs"] == pytest.approx(level_dbfs, abs=3)
    assert values["has_hum"]


@pytest.mark.parametrize("name", ["beat", "chords", "low chords", "song", "noise"])
def test_what_it_was_planted_into_has_none(signals, name):
    assert heard(under(signals, name)) == NO_HUM


@pytest.mark.parametrize(("pitch_hz", "rest_s"), [(49.0, 0.3), (58.27, 0.3), (50.0, 0.5), (60.0, 0.5)])
def test_notes_that_come_and_go_are_no_hum(pitch_hz, rest_s):
    assert heard(bass(pitch_hz, rest_s=rest_s)) == NO_HUM


@pytest.mark.parametrize("pitch_hz", [41.2, 46.25, 49.0, 51.91, 55.0, 58.27, 61.74, 98.0])
def test_a_drone_of_another_pitch_is_no_hum(pitch_hz):
    assert heard(bass(pitch_hz)) == NO_HUM


def test_a_tone_without_harmonics_is_no_hum(signals):
    assert heard(signals.sine(50, LENGTH_S, SAMPLE_RATE_HZ)) == NO_HUM


def test_hum_that_nobody_hears_is_said_but_not_flagged(signals):
    faint = hum(50.0, -80, round(LENGTH_S * SAMPLE_RATE_HZ))
    values = heard(faint + 0.01 * signals.white_noise(LENGTH_S, SAMPLE_RATE_HZ, amplitude=0.001))
    assert (values["hum_hz"], values["has_hum"]) == (50.0, False)


def test_too_little_to_tell():
    assert heard(hum(50.0, -30, 4 * SAMPLE_RATE_HZ)) == NO_HUM
    assert heard(np.zeros(1)) == NO_HUM
    assert heard(np.zeros(10 * SAMPLE_RATE_HZ)) == NO_HUM


def test_control_of_the_loudest_frames_bass_notes_are_hum(monkeypatch):
    monkeypatch.setattr(hum_module, "KEPT_QUANTILE", 0.9)
    assert heard(bass(50.0, rest_s=0.5))["has_hum"]


def test_control_without_the_places_of_lines_a_drone_is_hum(monkeypatch):
    monkeypatch.setattr(hum_module, "LINE_TOLERANCE_HZ", 20.0)
    monkeypatch.setattr(hum_module, "MAINS_TOLERANCE_HZ", 5.0)
    assert heard(bass(49.0))["has_hum"]
