"""Range of synthesised voices with known pitch, alone and accompanied; nothing where no voice is."""

import librosa
import numpy as np
import pytest
import soxr

from keeptake.audio import pitch as pitch_module
from keeptake.audio.frontend import mono_mix
from keeptake.audio.pitch import is_sung, pitch_track, voiced_range
from keeptake.custody.decode import decode

RATE_HZ = 16_000
NO_RANGE = {"voiced_low_hz": None, "voiced_median_hz": None, "voiced_high_hz": None}
BASS_HZ = [55.0, 82.4, 98.0, 110.0, 41.2] * 3
FORMANTS_HZ = ((700, 130), (1150, 150), (2600, 250))  # an open vowel's, with their widths


def glide(from_hz, to_hz, duration_s, *, vibrato_cents=50.0):
    """Pitch at each sample: even in semitones, with a vibrato of 5.5 Hz."""
    t = np.arange(round(duration_s * RATE_HZ)) / RATE_HZ
    return from_hz * (to_hz / from_hz) ** (t / duration_s) * 2 ** (vibrato_cents / 1200 * np.sin(2 * np.pi * 5.5 * t))


def voice(pitch_hz, *, first=1.0):
    """Harmonics up to 4 kHz under formants, the level of the first as given; root mean square 0.1."""
    phase = 2 * np.pi * np.cumsum(pitch_hz) / RATE_HZ
    out = np.zeros(pitch_hz.size)
    for k in range(1, int(4000 / pitch_hz.min()) + 1):
        gain = (0.3 + sum(1 / (1 + ((k * pitch_hz - hz) / width) ** 2) for hz, width in FORMANTS_HZ)) / k
        out += gain * (k * pitch_hz < 4000) * (first if k == 1 else 1) * np.sin(k * phase)
    return (0.1 * out / np.sqrt(np.mean(out**2))).astype(np.float32)


def line(pitches_hz):
    """Notes of 0.4 s as an instrument holds them: each dead steady, dying away; root mean square 0.1."""
    t = np.arange(round(0.4 * RATE_HZ)) / RATE_HZ
    notes = [sum(np.sin(2 * np.pi * hz * k * t) / k for k in range(1, 9)) * np.exp(-3 * t) for hz in pitches_hz]
    out = np.concatenate(notes)
    return (0.1 * out / np.sqrt(np.mean(out**2))).astype(np.float32)


def played(signals, name):
    """Six seconds without a voice."""
    return {
        "chords": lambda: signals.cadence(0, "major", 6.0, RATE_HZ),
        "song": lambda: signals.song(120, "ABC", 1, RATE_HZ),
        "drums": lambda: signals.drum_beat(104, 6.0, RATE_HZ, chords_hz=((),)),
        "noise": lambda: signals.white_noise(6.0, RATE_HZ),
        "melody": lambda: line([220.0, 261.6, 329.6, 440.0, 392.0] * 3),
        "bass": lambda: line(BASS_HZ),
        "sine": lambda: signals.sine(440, 6.0, RATE_HZ),
        "silence": lambda: np.zeros(6 * RATE_HZ),
    }[name]()


def heard(samples, segments_s=None):
    segments_s = [[0.0, samples.size / RATE_HZ]] if segments_s is None else segments_s
    return voiced_range(samples.astype(np.float32), segments_s, sample_rate_hz=RATE_HZ)


def limits(values):
    return np.array([values["voiced_low_hz"], values["voiced_median_hz"], values["voiced_high_hz"]])


def semitones_off(values, pitch_hz):
    return np.abs(12 * np.log2(limits(values) / np.percentile(pitch_hz, [5, 50, 95])))


@pytest.mark.parametrize(("from_hz", "to_hz"), [(110, 440), (440, 110), (220, 880), (90, 180)])
def test_range_of_a_sung_glide(from_hz, to_hz):
    pitch_hz = glide(from_hz, to_hz, 6.0)
    values = heard(voice(pitch_hz))
    assert (semitones_off(values, pitch_hz) < 0.5).all()
    assert values["voiced_s"] == pytest.approx(6.0, abs=0.3)
    assert all(type(value) is float for value in values.values())


@pytest.mark.parametrize("pitch_hz", [85.0, 220.0, 600.0, 1000.0])
def test_a_held_note_is_exact(pitch_hz):
    values = heard(voice(glide(pitch_hz, pitch_hz, 3.0, vibrato_cents=15)))
    assert limits(values) == pytest.approx(pitch_hz, rel=0.01)
    assert values["voiced_median_hz"] == pytest.approx(pitch_hz, rel=0.005)


def test_a_strong_second_harmonic_is_no_octave():
    pitch_hz = glide(200, 240, 4.0)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / RATE_HZ
    weak = sum(gain * np.sin(k * phase) for k, gain in ((1, 0.3), (2, 1.0), (3, 0.2), (4, 0.3)))
    assert (semitones_off(heard(0.1 * weak), pitch_hz) < 0.5).all()
    assert (semitones_off(heard(voice(pitch_hz, first=0.3)), pitch_hz) < 0.5).all()


def test_without_a_fundamental_there_is_no_range_rather_than_an_octave():
    assert heard(voice(glide(200, 240, 4.0), first=0.0)) == NO_RANGE | {"voiced_s": 0.0}


@pytest.mark.parametrize("name", ["chords", "song", "drums", "noise", "melody"])
def test_under_accompaniment_at_minus_12_db(signals, name):
    pitch_hz = glide(140, 330, 6.0)
    under = played(signals, name)
    under *= 0.1 * 10 ** (-12 / 20) / np.sqrt(np.mean(under**2))
    assert (semitones_off(heard(voice(pitch_hz) + under), pitch_hz) < 1).all()


@pytest.mark.parametrize("level", [0.25, 0.5])
def test_a_bass_under_the_voice_is_not_in_its_range(level):
    pitch_hz = glide(200, 330, 6.0)
    assert (semitones_off(heard(voice(pitch_hz) + level * line(BASS_HZ)), pitch_hz) < 1).all()


@pytest.mark.parametrize("name", ["chords", "song", "drums", "noise", "melody", "bass", "sine", "silence"])
def test_no_voice_no_range(signals, name):
    values = heard(played(signals, name))
    assert values == NO_RANGE | {"voiced_s": values["voiced_s"]}
    assert values["voiced_s"] < 0.3


def test_a_short_voice_has_no_range_but_its_seconds():
    values = heard(voice(glide(200, 240, 0.8)))
    assert values == NO_RANGE | {"voiced_s": pytest.approx(0.7, abs=0.1)}


def test_a_voice_in_a_tenth_of_the_segments_does_not_stand_for_them():
    samples = np.concatenate([voice(glide(200, 240, 1.5)), np.zeros(18 * RATE_HZ)])
    assert heard(samples)["voiced_low_hz"] is None
    assert heard(samples, [[0.0, 3.0]])["voiced_low_hz"] == pytest.approx(200, rel=0.05)


def test_only_segments_are_looked_at():
    low, high = voice(glide(150, 160, 2.0)), voice(glide(400, 420, 2.0))
    values = heard(np.concatenate([high, low, high]), [[2.0, 4.0]])
    assert limits(values) == pytest.approx(155, rel=0.06)
    both = heard(np.concatenate([high, low, high]), [[0.0, 2.0], [2.0, 4.0], [4.0, 9.0]])
    assert both["voiced_high_hz"] > 400
    for nothing in ([], [[1.0, 1.0]], [[1.0, 1.05]], [[7.0, 9.0]]):
        assert heard(low, nothing) == NO_RANGE | {"voiced_s": 0.0}


def test_pitch_is_librosas():
    samples = voice(glide(110, 440, 6.0, vibrato_cents=0))
    oracle_hz = librosa.yin(samples, fmin=80, fmax=1050, sr=RATE_HZ, frame_length=1024, hop_length=320, center=False)
    pitch_hz = pitch_track(samples, sample_rate_hz=RATE_HZ)
    assert np.isfinite(pitch_hz).mean() > 0.98
    assert np.nanpercentile(np.abs(pitch_hz / oracle_hz - 1), 98) < 0.01


def test_range_of_a_singer_whose_notes_are_known(dev_data):
    """Of vocadito's first excerpt, annotated by hand (Bittner et al. 2021): 114 to 194 Hz."""
    samples, rate_hz = decode(dev_data / "audio" / "voc_vocadito_1.m4a")
    values = heard(soxr.resample(mono_mix(samples), rate_hz, RATE_HZ))
    assert limits(values)[[0, 2]] == pytest.approx([114, 194], rel=0.04)
    assert values["voiced_s"] > 15


def test_runs_that_jump_are_split():
    steady, moving = np.full(8, 200.0), 200 * 2 ** (np.arange(8) / 60)
    assert is_sung(moving).all() and not is_sung(steady).any()
    assert not is_sung(moving[:4]).any()
    assert not is_sung(np.where(np.arange(8) % 4 == 3, np.nan, moving)).any()
    assert is_sung(np.concatenate([steady, 2 * moving])).tolist() == [False] * 8 + [True] * 8


def test_control_of_shallow_dips_noise_is_voiced(signals, monkeypatch):
    noise = signals.white_noise(6.0, RATE_HZ)
    assert not np.isfinite(pitch_track(noise, sample_rate_hz=RATE_HZ)).any()
    monkeypatch.setattr(pitch_module, "DEEPEST_DIP", 0.95)
    assert np.isfinite(pitch_track(noise, sample_rate_hz=RATE_HZ)).mean() > 0.5


def test_control_without_unrest_an_instrument_is_sung(monkeypatch):
    monkeypatch.setattr(pitch_module, "LEAST_UNREST", 0.0)
    assert limits(heard(line([220.0, 261.6, 329.6] * 3))) == pytest.approx([220, 261.6, 329.6], rel=0.01)
