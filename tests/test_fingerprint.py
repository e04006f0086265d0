"""Code words of sound: what copies keep and what other sound does not."""

import numpy as np
import pytest

from keeptake.audio.fingerprint import BITS, differing_bits, fingerprint, rotate
from keeptake.errors import InvalidAudioError


def melody(seed, duration_s=14.0, rate_hz=22_050, *, semitones=0.0, tempo=1.0):
    """Notes of random pitch and length with five harmonics, drawn from a seed: two voices."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(duration_s * rate_hz)) / rate_hz
    out = np.zeros(t.size)
    for lowest in (48, 64):
        start = 0.0
        while start < duration_s:
            length, pitch = rng.choice([0.25, 0.5, 0.75]) / tempo, lowest + rng.integers(0, 16) + semitones
            at = slice(round(start * rate_hz), round((start + length) * rate_hz))
            local = t[at] - start
            hz = 440 * 2 ** ((pitch - 69) / 12)
            out[at] += sum(np.sin(2 * np.pi * hz * k * local) / k for k in range(1, 6)) * np.exp(-local * 4)
            start += length
    return (0.2 * out).astype(np.float32)


def bit_error(a, b):
    size = min(len(a), len(b))
    differ = differing_bits(a[:size], b[:size])
    assert (differ >= 0).sum() > 20
    return differ[differ >= 0].mean() / BITS


def test_gain_leaves_every_code_word_as_it_was():
    take = melody(1)
    assert np.array_equal(fingerprint(take, 22_050), fingerprint(take * np.float32(0.25), 22_050))


def test_control_other_music_differs_in_almost_half_of_the_bits():
    assert bit_error(fingerprint(melody(1), 22_050), fingerprint(melody(2), 22_050)) > 0.38


@pytest.mark.parametrize("rate_hz", [8_000, 44_100, 48_000])
def test_sampling_rate_does_not_matter(rate_hz):
    assert bit_error(fingerprint(melody(1), 22_050), fingerprint(melody(1, rate_hz=rate_hz), rate_hz)) < 0.03


def test_noise_and_a_missing_treble_change_few_bits():
    take = melody(1)
    spectrum = np.fft.rfft(take)
    spectrum[round(3000 * take.size / 22_050) :] = 0
    noise = 0.02 * np.random.default_rng(0).standard_normal(take.size)
    copy = (np.fft.irfft(spectrum, take.size) + noise).astype(np.float32)
    assert bit_error(fingerprint(take, 22_050), fingerprint(copy, 22_050)) < 0.1


@pytest.mark.parametrize("semitones", [-1, 1, 5])
def test_transposition_is_a_rotation(semitones):
    as_it_was, transposed = fingerprint(melody(1), 22_050), fingerprint(melody(1, semitones=semitones), 22_050)
    assert bit_error(rotate(as_it_was, 2 * semitones), transposed) < 0.08
    assert bit_error(as_it_was, transposed) > 0.3


def test_rotation_goes_round_the_circle():
    codes = fingerprint(melody(3), 22_050)
    assert np.array_equal(rotate(rotate(codes, 7), -7), codes)
    assert np.array_equal(rotate(codes, 24), codes)
    assert not np.array_equal(rotate(codes, 1), codes)
    assert (rotate(codes, np.arange(len(codes))) < np.uint64(1 << BITS)).all()


def test_what_tells_nothing_has_no_code_word(signals):
    silence = np.zeros(22_050 * 5, np.float32)
    whisper = signals.white_noise(5.0, 22_050, amplitude=1e-4)
    tone = signals.sine(440.0, 5.0, 22_050)
    for samples in (silence, whisper, tone):
        codes = fingerprint(samples, 22_050)
        assert len(codes) > 30 and not codes.any()


def test_silence_inside_music_is_left_out_and_the_music_is_not():
    take = np.concatenate([melody(1, 6.0), np.zeros(22_050 * 6, np.float32)])
    codes = fingerprint(take, 22_050)
    assert (codes[:40] != 0).all() and not codes[70:].any()


def test_a_code_word_a_tenth_of_a_second():
    assert len(fingerprint(melody(1, 14.0), 22_050)) == 127  # 137 windows of 0.37 s start in time; smoothing and lags cost ten


@pytest.mark.parametrize("duration_s", [0.0, 1 / 22_050, 0.1, 1.3])
def test_too_short_gives_no_code_words(duration_s, signals):
    assert fingerprint(signals.white_noise(duration_s, 22_050), 22_050).shape == (0,)


def test_refuses_what_is_not_one_channel_of_finite_samples():
    with pytest.raises(InvalidAudioError, match=r"one channel.*\(100, 2\)"):
        fingerprint(np.zeros((100, 2), np.float32), 22_050)
    with pytest.raises(InvalidAudioError, match="positive, got 0"):
        fingerprint(np.zeros(100, np.float32), 0)
    for bad in (np.nan, 1e20):
        with pytest.raises(InvalidAudioError, match="finite"):
            fingerprint(np.array([0.0, bad], np.float32), 22_050)
