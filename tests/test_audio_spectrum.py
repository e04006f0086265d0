"""Timbre against librosa on the same framing; the cut of the top on filtered noise."""

import librosa
import numpy as np
import pytest
from scipy.signal import butter, firwin, oaconvolve, sosfilt

from keeptake.audio.frontend import SAMPLE_RATE_HZ, SHORT_FFT, SHORT_HOP, SHORT_STRIDE, listen
from keeptake.audio.spectrum import (
    MFCC_COEFFICIENTS,
    BandwidthMeter,
    centroid_and_bandwidth,
    cepstrum,
    flatness,
    rolloff,
    timbre,
    zero_crossing_rate,
)

FRAMING = {"sr": SAMPLE_RATE_HZ, "n_fft": SHORT_FFT, "hop_length": SHORT_STRIDE * SHORT_HOP, "pad_mode": "constant"}


@pytest.fixture(params=["music", "noise", "beat"])
def mono(signals, request):
    if request.param == "music":
        return signals.cadence(5, "minor", 6.0, SAMPLE_RATE_HZ) + signals.white_noise(6.0, SAMPLE_RATE_HZ, amplitude=1e-3)
    if request.param == "noise":
        return signals.white_noise(6.0, SAMPLE_RATE_HZ)
    return signals.drum_beat(120, 6.0, SAMPLE_RATE_HZ) + signals.white_noise(6.0, SAMPLE_RATE_HZ, amplitude=1e-3)


def test_every_frame_is_librosas_within_a_thousandth(mono):
    magnitude = listen(mono).short
    centroid_hz, bandwidth_hz = centroid_and_bandwidth(magnitude)
    np.testing.assert_allclose(centroid_hz, librosa.feature.spectral_centroid(y=mono, **FRAMING)[0], rtol=1e-3)
    np.testing.assert_allclose(bandwidth_hz, librosa.feature.spectral_bandwidth(y=mono, **FRAMING)[0], rtol=1e-3)
    # A rounding may move the share of 85 % across one bin in some frames; the mean is what is kept.
    expected_hz = librosa.feature.spectral_rolloff(y=mono, **FRAMING)[0]
    assert np.mean(rolloff(magnitude)) == pytest.approx(np.mean(expected_hz), rel=1e-3)
    assert np.abs(rolloff(magnitude) - expected_hz).max() <= SAMPLE_RATE_HZ / SHORT_FFT + 1e-6
    np.testing.assert_allclose(flatness(magnitude), librosa.feature.spectral_flatness(S=magnitude.T)[0], rtol=1e-3)


def test_mfcc_are_librosas_within_a_thousandth(mono):
    expected = librosa.feature.mfcc(y=mono, n_mfcc=MFCC_COEFFICIENTS, **FRAMING).T
    measured = cepstrum(listen(mono).mel[::SHORT_STRIDE])
    np.testing.assert_allclose(measured, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    np.testing.assert_allclose(measured.mean(axis=0), expected.mean(axis=0), rtol=1e-3, atol=1e-3)


def test_control_another_framing_is_not_within_a_thousandth(signals):
    mono = signals.cadence(5, "minor", 6.0, SAMPLE_RATE_HZ)
    other = librosa.feature.spectral_centroid(y=mono, sr=SAMPLE_RATE_HZ, n_fft=2048, hop_length=512).mean()
    assert timbre(listen(mono))["spectral_centroid_hz"] != pytest.approx(other, rel=1e-3)


def test_values_are_means_over_the_frames_that_sound(mono):
    values = timbre(listen(mono))
    with_pause = timbre(listen(np.concatenate([mono, np.zeros(4 * SAMPLE_RATE_HZ, np.float32)])))
    assert len(values["mfcc_mean"]) == len(values["mfcc_deviation"]) == MFCC_COEFFICIENTS
    assert with_pause["spectral_centroid_hz"] == pytest.approx(values["spectral_centroid_hz"], rel=0.02)


def test_a_tones_centroid_is_its_frequency_and_noise_is_flat(signals):
    tone = timbre(listen(signals.sine(1000, 3.0, SAMPLE_RATE_HZ)))
    noise = timbre(listen(signals.white_noise(3.0, SAMPLE_RATE_HZ)))
    assert tone["spectral_centroid_hz"] == pytest.approx(1000, rel=0.01)
    assert tone["spectral_flatness"] < 1e-3 < 0.3 < noise["spectral_flatness"] < 1
    assert noise["spectral_centroid_hz"] == pytest.approx(SAMPLE_RATE_HZ / 4, rel=0.02)


def test_zero_crossings_of_a_tone(signals):
    assert zero_crossing_rate(signals.sine(500, 2.0, SAMPLE_RATE_HZ)) == pytest.approx(1000 / SAMPLE_RATE_HZ, rel=1e-3)


def limit_hz(mono, rate_hz=44_100):
    meter = BandwidthMeter(rate_hz)
    meter.add(mono.astype(np.float32))
    return meter.limit_hz()


@pytest.mark.parametrize("cut_hz", [4000, 8000, 11_025, 16_000, 19_000])
def test_the_cut_is_found(signals, cut_hz):
    noise = signals.white_noise(8.0, 44_100)
    cut = oaconvolve(noise, firwin(1025, cut_hz, fs=44_100), mode="same") + signals.white_noise(
        8.0, 44_100, amplitude=1e-4, seed=1
    )
    assert limit_hz(cut) == pytest.approx(cut_hz, abs=300)


def test_control_a_gentle_slope_is_no_cut(signals):
    noise = signals.white_noise(8.0, 44_100)
    gentle = sosfilt(butter(1, 3000, fs=44_100, output="sos"), noise)
    assert limit_hz(gentle) == 22_050
    assert limit_hz(noise) == 22_050


def test_an_upsampled_take_shows_its_first_rate(signals):
    import soxr

    assert limit_hz(soxr.resample(signals.white_noise(6.0, 16_000), 16_000, 48_000), 48_000) == pytest.approx(8000, abs=400)


def test_a_batch_without_a_loud_frame_has_no_rolloff():
    """Twenty-four seconds of music with silence after them crashed the worker, and one such file ended `keeptake analyze`."""
    assert rolloff(np.zeros((0, 513), np.float32)).shape == (0,)
    mono = np.concatenate([np.random.default_rng(0).normal(0, 0.1, 23 * SAMPLE_RATE_HZ), np.zeros(2 * SAMPLE_RATE_HZ)])
    found = timbre(listen(mono.astype(np.float32)))
    assert found["spectral_rolloff_hz"] == pytest.approx(0.85 * SAMPLE_RATE_HZ / 2, rel=0.05)


def test_silence_has_no_limit():
    assert limit_hz(np.zeros(10_000)) is None
