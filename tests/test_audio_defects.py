"""Each fault is flagged on a clip that has it, and on none that has not."""

import numpy as np
import pytest

from keeptake.audio.defects import DefectMeter
from keeptake.audio.frontend import even_blocks

RATE_HZ = 44_100
FLAGS = ("has_clipping", "is_silent", "has_dc_offset", "is_antiphase", "is_one_sided", "has_abrupt_start", "has_abrupt_end")


def measured(samples, rate_hz=RATE_HZ):
    samples = samples[:, None] if samples.ndim == 1 else samples
    meter = DefectMeter(rate_hz, samples.shape[1])
    for block in even_blocks([samples], rate_hz):
        meter.add(block)
    return meter.values()


def flags(values):
    return {flag for flag in FLAGS if values[flag]}


@pytest.fixture
def sound(signals):
    """Twelve clean seconds of stereo music that begin and end in silence: no fault at all."""
    mono = signals.drum_beat(100, 12.0, RATE_HZ) * 0.7
    other = signals.cadence(0, "major", 12.0, RATE_HZ) * 0.3
    edge = np.ones(mono.size, np.float32)
    edge[: RATE_HZ // 10] = np.linspace(0, 1, RATE_HZ // 10)
    edge[-RATE_HZ // 2 :] = np.linspace(1, 0, RATE_HZ // 2)
    return np.stack([mono + other, mono - other], axis=1) * edge[:, None]


def test_clean_music_has_no_fault(sound):
    values = measured(sound)
    assert flags(values) == set()
    assert values["no_clipping"] == 1
    assert abs(values["dc_offset"]) < 0.01


def test_clipping_grows_with_the_gain(sound):
    normalised = sound / np.abs(sound).max()
    heard = [measured(np.clip(normalised * 10 ** (gain_db / 20), -1, 1)) for gain_db in (0, 3, 6, 12, 24)]
    shares = [values["clipping_share"] for values in heard]
    assert shares == sorted(shares)
    assert [values["has_clipping"] for values in heard] == [False, False, True, True, True]
    assert heard[2]["no_clipping"] < 1
    assert heard[-1]["no_clipping"] == 0


def test_clipping_is_seen_after_the_level_was_lowered(sound):
    """A clipped take that was turned down 6 dB afterwards has no sample at full scale, and sounds as bad."""
    values = measured(0.5 * np.clip(8 * sound, -1, 1))
    assert values["has_clipping"]
    assert values["clipping_share"] > 0.01


def test_samples_beyond_full_scale_are_clipped(sound):
    assert measured(3 * sound / np.abs(sound).max())["has_clipping"]


@pytest.mark.parametrize("frequency_hz", [30, 50, 440, 3000])
@pytest.mark.parametrize("amplitude", [0.3, 1.0])
def test_control_a_tone_is_not_clipped(signals, frequency_hz, amplitude):
    """Slow tones stay near their crest for many samples: rows alone would call a bass note clipped."""
    assert not measured(signals.sine(frequency_hz, 3.0, RATE_HZ, amplitude=amplitude))["has_clipping"]


def test_normalised_music_is_not_clipped(sound):
    assert not measured(sound / np.abs(sound).max())["has_clipping"]


def test_silence_is_measured_by_share(sound):
    half = sound.copy()
    half[len(half) // 2 :] = 0
    values = measured(half)
    assert values["silence_share"] == pytest.approx(0.5, abs=0.05)
    assert "is_silent" not in flags(values)
    assert flags(measured(np.zeros((RATE_HZ, 2), np.float32))) == {"is_silent"}


def test_noise_below_the_floor_is_silence(signals):
    assert flags(measured(signals.white_noise(3.0, RATE_HZ, amplitude=1e-4))) == {"is_silent"}


@pytest.mark.parametrize("offset", [0.02, -0.3])
def test_offset_is_measured_with_its_sign(sound, offset):
    values = measured(0.5 * sound + np.float32(offset))
    assert values["dc_offset"] == pytest.approx(offset, abs=2e-3)
    assert flags(values) == {"has_dc_offset"}


def test_antiphase(sound):
    values = measured(np.stack([sound[:, 0], -sound[:, 0]], axis=1))
    assert values["stereo_correlation"] == pytest.approx(-1)
    assert flags(values) == {"is_antiphase"}


def test_an_offset_does_not_hide_antiphase(sound):
    values = measured(np.stack([0.3 * sound[:, 0] + 0.5, -0.3 * sound[:, 0] + 0.5], axis=1).astype(np.float32))
    assert values["stereo_correlation"] == pytest.approx(-1)


def test_one_sided(sound):
    only_left = sound.copy()
    only_left[:, 1] = 0
    values = measured(only_left)
    assert flags(values) == {"is_one_sided"}
    assert values["stereo_correlation"] is None
    assert "is_one_sided" not in flags(measured(sound * np.array([1.0, 0.1], np.float32)))


def test_mono_has_no_stereo_faults(sound):
    values = measured(sound[:, 0])
    assert (values["stereo_correlation"], values["channel_difference_db"]) == (None, None)


def test_cut_edges_are_abrupt(sound):
    assert flags(measured(sound[RATE_HZ // 2 : -RATE_HZ])) >= {"has_abrupt_end"}
    tone = np.sin(np.arange(RATE_HZ * 2) * 0.06 + 1).astype(np.float32)
    assert flags(measured(tone)) == {"has_abrupt_start", "has_abrupt_end"}


def test_blocks_do_not_change_the_numbers(sound):
    whole = measured(sound)
    meter = DefectMeter(RATE_HZ, 2)
    for block in even_blocks(np.array_split(sound, 37), RATE_HZ):
        meter.add(block)
    assert meter.values() == whole


def test_clicks_are_counted_a_minute_and_one_alone_is_not_flagged(sound):
    once, often = sound.copy(), sound.copy()
    once[round(5.25 * RATE_HZ)] += 0.5
    often[[round(second * RATE_HZ) for second in (3.15, 5.25, 7.35)]] += 0.5
    heard = [measured(samples) for samples in (sound, once, often)]
    assert [values["click_count"] for values in heard] == [0, 1, 3]
    assert [values["clicks_per_min"] for values in heard] == pytest.approx([0, 5, 15])
    assert [values["has_clicks"] for values in heard] == [False, False, True]


def test_one_dropout_is_flagged(sound):
    gap = sound.copy()
    gap[5 * RATE_HZ + 5000 : 5 * RATE_HZ + 5800] = 0
    assert [(measured(samples)["dropout_count"], measured(samples)["has_dropouts"]) for samples in (sound, gap)] == [
        (0, False),
        (1, True),
    ]


@pytest.mark.parametrize("samples", [1, 2, 3, 50])
def test_a_few_samples_are_measured_without_a_crash(samples):
    values = measured(np.full((samples, 2), 0.1, np.float32))
    assert all(value is None or np.isfinite(value) for value in values.values())


def test_planar_samples_are_measured_as_interleaved_ones(sound):
    """What PyAV decodes is turned in memory: once the channels' means were taken off into a copy, and a correlation was noise."""
    turned = DefectMeter(RATE_HZ, 2)
    turned.add(np.asfortranarray(sound.astype(np.float32)))
    straight = DefectMeter(RATE_HZ, 2)
    straight.add(np.ascontiguousarray(sound.astype(np.float32)))
    assert turned.values() == pytest.approx(straight.values(), rel=1e-5)
