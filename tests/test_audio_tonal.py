"""Keys of synthesised cadences, and no key where there is none."""

import numpy as np
import pytest

from keeptake.audio.frontend import SAMPLE_RATE_HZ, listen
from keeptake.audio.tonal import (
    KEYS,
    PITCH_CLASSES,
    PROFILES,
    camelot,
    chromagram,
    find_key,
    spectral_peaks,
    tonality,
    tuning,
    with_harmonics,
)


def tonal(mono):
    heard = listen(mono)
    return tonality(heard.long, duration_s=heard.duration_s)


def heard_key(mono):
    values, reason, _ = tonal(mono)
    return reason if values is None else values["key"]


@pytest.mark.parametrize("mode", ["major", "minor"])
@pytest.mark.parametrize("tonic", range(12))
def test_every_key_is_named(signals, tonic, mode):
    assert heard_key(signals.cadence(tonic, mode, 8.0, SAMPLE_RATE_HZ)) == f"{PITCH_CLASSES[tonic]} {mode}"


@pytest.mark.parametrize("tuning_cents", [-40.0, -15.0, 20.0, 45.0])
def test_key_survives_another_tuning(signals, tuning_cents):
    mono = signals.cadence(9, "minor", 8.0, SAMPLE_RATE_HZ, tuning_cents=tuning_cents)
    values, _, _ = tonal(mono)
    assert values["key"] == "A minor"
    assert values["tuning_cents"] == pytest.approx(tuning_cents, abs=5)


def test_control_without_the_tuning_the_chroma_smears(signals):
    peaks = spectral_peaks(listen(signals.cadence(9, "minor", 8.0, SAMPLE_RATE_HZ, tuning_cents=45.0)).long)
    cents, _ = tuning(peaks)
    tuned, untuned = (with_harmonics(chromagram(peaks, tuning_cents=given)).sum(axis=0) for given in (cents, 0.0))
    assert find_key(tuned).correlation > find_key(untuned).correlation + 0.1


def test_key_survives_drums_and_noise(signals):
    mono = signals.cadence(4, "minor", 12.0, SAMPLE_RATE_HZ) + signals.white_noise(12.0, SAMPLE_RATE_HZ, amplitude=0.05)
    mono += 0.8 * signals.drum_beat(100, 12.0, SAMPLE_RATE_HZ, chords_hz=((),))
    assert heard_key(mono) == "E minor"


@pytest.mark.parametrize("seed", range(3))
def test_drums_have_no_key(signals, seed):
    drums = signals.drum_beat(95 + 20 * seed, 10.0, SAMPLE_RATE_HZ, chords_hz=((),), seed=seed)
    assert heard_key(drums) in ("atonal", "single-pitch")


def test_noise_has_no_key(signals):
    assert heard_key(signals.white_noise(10.0, SAMPLE_RATE_HZ)) == "atonal"


@pytest.mark.parametrize("frequency_hz", [82.4, 440.0, 1000.0])
def test_a_tone_has_no_mode(signals, frequency_hz):
    assert heard_key(signals.sine(frequency_hz, 8.0, SAMPLE_RATE_HZ)) == "single-pitch"


def test_a_click_track_has_no_key(signals):
    assert heard_key(signals.click_track(120, 10.0, SAMPLE_RATE_HZ)) in ("atonal", "single-pitch")


def test_values_are_in_their_ranges(signals):
    values, reason, chroma = tonal(signals.cadence(0, "major", 6.0, SAMPLE_RATE_HZ))
    assert reason is None
    assert 0 < values["key_confidence"] <= 1
    assert values["key_second"] in KEYS
    assert len(values["chroma"]) == 12
    assert max(values["chroma"]) == 1
    assert chroma.min() >= 0
    assert chroma.max() == pytest.approx(1)


def test_profiles_find_themselves_in_every_key():
    for number, key in enumerate(KEYS):
        assert find_key(np.roll(PROFILES[number // 12], number % 12)).name == key


def test_silence_is_atonal_and_its_chroma_empty():
    """A bincount of nothing counts in integers: the chroma of silence once failed on adding a float."""
    values, reason, chroma = tonal(np.zeros(SAMPLE_RATE_HZ, np.float32))
    assert (values, reason) == (None, "atonal")
    assert not chroma.any()


CAMELOT_WHEEL = {  # as printed on the published wheel from 1 to 12, enharmonic names as `KEYS` spells them
    f"{number}{letter}": f"{tonic} {mode}"
    for letter, mode, tonics in (("A", "minor", "Ab Eb Bb F C G D A E B F# C#"), ("B", "major", "B F# C# Ab Eb Bb F C G D A E"))
    for number, tonic in enumerate(tonics.split(), start=1)
}


@pytest.mark.parametrize(("code", "key"), CAMELOT_WHEEL.items())
def test_camelot_code_of_every_key(code, key):
    assert camelot(key) == code


def test_the_wheel_has_every_key_once():
    assert sorted(CAMELOT_WHEEL.values()) == sorted(KEYS)


@pytest.mark.parametrize("key", ["A", "a minor", "A# minor", "8A", ""])
def test_a_key_in_another_spelling_has_no_camelot_code(key):
    with pytest.raises(ValueError, match="a key is one of"):
        camelot(key)


def test_camelot_code_stands_beside_the_key(signals):
    values, _, _ = tonal(signals.cadence(9, "minor", 8.0, SAMPLE_RATE_HZ))
    assert (values["key"], values["camelot"]) == ("A minor", "8A")
