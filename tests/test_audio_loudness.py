"""Loudness against pyloudnorm and the EBU's own test signals, true peak against eightfold oversampling."""

import warnings

import numpy as np
import pyloudnorm
import pytest
from scipy.signal import resample_poly

from keeptake.audio.frontend import even_blocks
from keeptake.audio.k_weighting import k_weighting
from keeptake.audio.loudness import LoudnessMeter, TruePeakMeter


def measured(samples, rate_hz):
    samples = samples[:, None] if samples.ndim == 1 else samples
    meter = LoudnessMeter(rate_hz, samples.shape[1])
    for block in even_blocks([samples], rate_hz):
        meter.add(block)
    return meter.values()


def tone(level_dbfs, duration_s, rate_hz=48_000, frequency_hz=1000.0):
    """A stereo sine whose both channels have the given peak level, as EBU Tech 3341 describes its signals."""
    t = np.arange(round(duration_s * rate_hz)) / rate_hz
    one = 10 ** (level_dbfs / 20) * np.sin(2 * np.pi * frequency_hz * t)
    return np.stack([one, one], axis=1).astype(np.float32)


@pytest.mark.parametrize("rate_hz", [22_050, 32_000, 44_100, 48_000])
def test_loudness_agrees_with_pyloudnorm(signals, rate_hz):
    for samples in (
        signals.white_noise(12.0, rate_hz),
        signals.cadence(3, "major", 12.0, rate_hz),
        signals.drum_beat(110, 12.0, rate_hz),
        np.stack([signals.drum_beat(90, 25.0, rate_hz), signals.cadence(7, "minor", 25.0, rate_hz)], axis=1),
    ):
        expected = pyloudnorm.Meter(rate_hz).integrated_loudness(samples.astype(float))
        assert measured(samples, rate_hz)["loudness_lufs"] == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize(
    ("levels_dbfs", "expected_lufs"),
    [
        ([(-23, 20)], -23.0),
        ([(-33, 20)], -33.0),
        ([(-36, 10), (-23, 60), (-36, 10)], -23.0),
        ([(-72, 10), (-36, 10), (-23, 60), (-36, 10), (-72, 10)], -23.0),
        ([(-26, 20), (-20, 20.1), (-26, 20)], -23.0),
    ],
    ids=["case 1", "case 2", "case 3", "case 4", "case 5"],
)
def test_ebu_tech_3341_integrated(levels_dbfs, expected_lufs):
    samples = np.concatenate([tone(level_dbfs, duration_s) for level_dbfs, duration_s in levels_dbfs])
    assert measured(samples, 48_000)["loudness_lufs"] == pytest.approx(expected_lufs, abs=0.1)


@pytest.mark.parametrize(
    ("levels_dbfs", "expected_lu"),
    [([-20, -30], 10.0), ([-20, -15], 5.0), ([-40, -20], 20.0), ([-50, -35, -20, -35, -50], 15.0)],
    ids=["case 1", "case 2", "case 3", "case 4"],
)
def test_ebu_tech_3342_range(levels_dbfs, expected_lu):
    samples = np.concatenate([tone(level_dbfs, 20) for level_dbfs in levels_dbfs])
    assert measured(samples, 48_000)["loudness_range_lu"] == pytest.approx(expected_lu, abs=1.0)


def test_gating_is_what_makes_pauses_harmless():
    """Negative control: the plain mean of the same signal is 2 LU lower."""
    samples = np.concatenate([tone(-23, 20), tone(-60, 12)])
    assert measured(samples, 48_000)["loudness_lufs"] == pytest.approx(-23, abs=0.1)
    assert 10 * np.log10(np.mean(samples.astype(float) ** 2) * 2) < -23 - 2


def test_surround_channels_weigh_more_and_bass_effects_nothing():
    one = tone(-23, 5)[:, :1]
    six = np.zeros((len(one), 6), np.float32)
    six[:, 4:5] = one
    assert measured(six, 48_000)["loudness_lufs"] - measured(one, 48_000)["loudness_lufs"] == pytest.approx(1.5, abs=0.02)
    six = np.zeros((len(one), 6), np.float32)
    six[:, 3:4] = one
    assert measured(six, 48_000)["loudness_lufs"] is None


def test_k_weighting_at_48_khz_is_the_standards_table():
    table = [
        [1.53512485958697, -2.69169618940638, 1.19839281085285, 1.0, -1.69065929318241, 0.73248077421585],
        [1.0, -2.0, 1.0, 1.0, -1.99004745483398, 0.99007225036621],
    ]
    np.testing.assert_allclose(k_weighting(48_000), table, atol=1e-7)


def true_peak_db(samples, rate_hz):
    return measured(samples, rate_hz)["true_peak_dbtp"]


@pytest.mark.parametrize("phase", [0.1, 0.25, 0.37])
@pytest.mark.parametrize("frequency_share", [0.05, 0.1234, 0.25, 0.31, 0.4])
def test_true_peak_of_a_tone_is_its_amplitude(frequency_share, phase):
    t = np.arange(48_000)
    fade = np.minimum(1, np.minimum(t, t[::-1]) / 2000)  # an abrupt edge has overshoots of its own
    samples = (0.5 * fade * np.sin(2 * np.pi * (frequency_share * t + phase))).astype(np.float32)
    assert true_peak_db(samples, 48_000) == pytest.approx(20 * np.log10(0.5), abs=0.1)


def test_control_the_sample_peak_misses_three_decibels():
    samples = (0.5 * np.sin(2 * np.pi * (0.25 * np.arange(48_000) + 0.125))).astype(np.float32)
    values = measured(samples, 48_000)
    assert values["sample_peak_dbfs"] == pytest.approx(20 * np.log10(0.5) - 3.01, abs=0.01)
    assert values["true_peak_dbtp"] > values["sample_peak_dbfs"] + 2.9


def test_true_peak_agrees_with_eightfold_oversampling(signals):
    rng = np.random.default_rng(3)
    noise = rng.standard_normal(60_000)
    for samples in (
        0.2 * noise,
        np.clip(0.8 * noise, -1, 1),
        np.tanh(signals.drum_beat(120, 3.0, 44_100) * 8),
        signals.cadence(5, "minor", 3.0, 44_100),
    ):
        samples = samples.astype(np.float32)
        reference_db = 20 * np.log10(np.abs(resample_poly(samples.astype(float), 8, 1)).max())
        assert true_peak_db(samples, 44_100) == pytest.approx(reference_db, abs=0.1)


def test_true_peak_at_a_cut_between_blocks_is_found():
    """The meter sees blocks: a peak that stands astride a cut was once interpolated from one of its sides only."""
    samples = (0.5 * np.sin(2 * np.pi * (0.25 * np.arange(4000) + 0.125)))[:, None].astype(np.float32)
    samples[:1990] *= 0.1
    samples[2010:] *= 0.1
    whole, cut = TruePeakMeter(), TruePeakMeter()
    whole.add(samples)
    cut.add(samples[:2000])
    cut.add(samples[2000:])
    assert cut.value() == pytest.approx(whole.value(), rel=1e-3)


def test_dev_recordings_agree_with_pyloudnorm(dev_data):
    from keeptake.custody.decode import decode

    for name in ("km_vibe_ace.m4a", "rd_08_ballad_v_flat.ogg", "sp_loop_compus.wav", "voc_vocadito_1.m4a"):
        samples, rate_hz = decode(dev_data / "audio" / name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pyloudnorm's own, about clipping
            expected = pyloudnorm.Meter(rate_hz).integrated_loudness(samples.astype(float))
        values = measured(samples, rate_hz)
        reference = np.abs(resample_poly(samples.astype(float), 8, 1, axis=0)).max()
        assert values["loudness_lufs"] == pytest.approx(expected, abs=0.1), name
        assert values["true_peak_dbtp"] == pytest.approx(20 * np.log10(reference), abs=0.1), name


def test_silence_has_no_loudness():
    values = measured(np.zeros(48_000, np.float32), 48_000)
    assert values["loudness_lufs"] is None
    assert values["true_peak_dbtp"] is None
    assert values["dynamic_range"] is None
