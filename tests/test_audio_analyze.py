"""An analysis as a whole: every part answers or says why not; nothing depends on how the samples came."""

import json
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keeptake.audio.analyze import FEATURE_COLUMNS, PART_VERSIONS, REASONS, Networks, analyze, features
from keeptake.errors import AudioReason, AudioRefusedError, ConfigurationError
from keeptake.ledger.tables import features as features_table

RATE_HZ = 22_050
HAND_MADE = sorted(PART_VERSIONS.keys() - {"vocals", "style"})


def reasons(parts):
    return {name: part.reason for name, part in parts.items() if part.status == "null"}


def all_numbers(value):
    if isinstance(value, dict):
        return [number for item in value.values() for number in all_numbers(item)]
    if isinstance(value, list):
        return [number for item in value for number in all_numbers(item)]
    return [value] if isinstance(value, float) else []


def assert_sound(parts):
    """Plain JSON without NaN; a part is ok with values or null with a known reason."""
    for name, part in parts.items():
        assert part.version == PART_VERSIONS[name]
        assert (part.status == "null") == (part.reason is not None) == (not part.values), name
        assert part.reason is None or part.reason in REASONS, (name, part.reason)
        json.dumps(part.values, allow_nan=False)
        assert all(math.isfinite(number) for number in all_numbers(part.values)), name


def test_music_is_heard_in_every_part_without_networks(signals):
    parts = analyze([signals.drum_beat(100, 12.0, 44_100)], 44_100)
    assert_sound(parts)
    assert reasons(parts) == {"style": "no-networks", "vocals": "no-networks"}
    assert parts["rhythm"].values["tempo_bpm"] == pytest.approx(100, rel=1e-3)
    assert all(part.cpu_s >= 0 for part in parts.values())


@pytest.mark.parametrize("seconds", [0, 1 / RATE_HZ, 0.01, 0.049, 0.06, 0.2, 0.5, 1.2, 2.9, 4.0])
def test_short_audio_is_null_with_a_reason_and_never_a_crash(signals, seconds):
    samples = signals.cadence(0, "major", 5.0, RATE_HZ)[: round(seconds * RATE_HZ)]
    parts = analyze([samples] if samples.size else [], RATE_HZ)
    assert_sound(parts)
    if seconds < 0.05:
        assert set(reasons(parts).values()) == {"too-short"} or set(reasons(parts)) == set(PART_VERSIONS) - {"defects"}
    if seconds < 1:
        assert reasons(parts)["tonal"] == "too-short"


def test_silence_has_no_tempo_key_or_vocals():
    parts = analyze([np.zeros((8 * RATE_HZ, 2), np.float32)], RATE_HZ)
    assert_sound(parts)
    assert reasons(parts) == dict.fromkeys(PART_VERSIONS.keys() - {"defects"}, "silent")
    columns = features(parts)
    assert columns["is_silent"] is True
    assert columns["duration_s"] == 8
    assert columns["tempo_bpm"] is columns["key"] is columns["has_vocals"] is None


def test_a_sine_has_no_tempo_and_no_mode(signals):
    parts = analyze([signals.sine(440, 10.0, RATE_HZ)], RATE_HZ)
    assert_sound(parts)
    assert reasons(parts)["rhythm"] == "nothing-periodic"
    assert reasons(parts)["tonal"] == "single-pitch"


def test_noise_has_no_tempo_and_no_key(signals):
    parts = analyze([signals.white_noise(10.0, RATE_HZ)], RATE_HZ)
    assert reasons(parts)["rhythm"] == "nothing-periodic"
    assert reasons(parts)["tonal"] == "atonal"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e20])
def test_samples_that_are_no_numbers_make_every_part_null(signals, bad):
    """A float file with samples of 1e20 passed for audio, and its levels were NaN, which the ledger cannot hold."""
    samples = signals.drum_beat(100, 12.0, RATE_HZ).copy()
    samples[-5] = bad
    assert reasons(analyze([samples], RATE_HZ)) == dict.fromkeys(PART_VERSIONS, "non-finite-samples")


def test_a_decoder_that_gives_up_is_not_a_finding(signals):
    """Once such a file came out as eight null parts, as if it had been heard."""

    def blocks():
        yield signals.sine(440, 1.0, RATE_HZ)
        raise AudioRefusedError(AudioReason.UNDECODABLE, "broken frame")

    with pytest.raises(AudioRefusedError, match="broken frame"):
        analyze(blocks(), RATE_HZ)


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 32_000, 48_000, 96_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_rate_and_channels_do_not_change_the_music(signals, rate_hz, channels):
    mono = signals.drum_beat(120, 8.0, rate_hz)
    parts = analyze([np.stack([mono] * channels, axis=1)], rate_hz)
    assert_sound(parts)
    assert parts["rhythm"].values["tempo_bpm"] == pytest.approx(120, rel=2e-3)


@pytest.mark.parametrize("cuts", [(1000,), (441_000 // 2, 441_000), (7, 99, 300_000)])
def test_the_blocks_do_not_change_the_answer(signals, cuts):
    samples = np.stack([signals.drum_beat(95, 12.0, 44_100), signals.cadence(9, "minor", 12.0, 44_100)], axis=1)
    whole, cut = (analyze(blocks, 44_100) for blocks in ([samples], np.split(samples, cuts)))
    assert {name: part.values for name, part in whole.items()} == {name: part.values for name, part in cut.items()}


def test_a_part_asked_for_alone_is_the_same(signals):
    samples = signals.drum_beat(128, 10.0, RATE_HZ)
    together = analyze([samples], RATE_HZ)
    for name in HAND_MADE:
        alone = analyze([samples], RATE_HZ, parts=[name])
        assert set(alone) == {name}
        assert alone[name].values == together[name].values, name


def test_wrong_questions_are_refused():
    with pytest.raises(ConfigurationError, match="melody"):
        analyze([], RATE_HZ, parts=["melody"])
    with pytest.raises(ConfigurationError, match="-1"):
        analyze([], -1)


def test_features_are_the_ledgers_columns(signals):
    columns = {column for group in FEATURE_COLUMNS.values() for column in group}
    own = {column.name for column in features_table.columns} - {"audio_sha256", "versions"}
    assert columns >= own - columns_of_others()
    assert set(features(analyze([signals.drum_beat(100, 5.0, RATE_HZ)], RATE_HZ))) == columns
    assert features({}) == dict.fromkeys(columns)


def columns_of_others():
    """Columns of the ledger's table that no part of an analysis fills."""
    return {"analyzed_at", "updated_at", "made_at"}


class MadeUp:
    """Outputs of a network that was not run."""

    tags = ("vocal", "no vocal", "rock")

    def __init__(self, vocal):
        self.tags_probability = np.tile([vocal, 0.3 - vocal, 0.5], (3, 1))
        self.starts_s = np.array([0.0, 3.0, 6.0])
        self.probability = np.full(280, vocal)
        self.calls = 0

    def __call__(self, mono_16k):
        self.calls += 1
        return [self]


@pytest.mark.parametrize(("vocal", "has_vocals"), [(0.28, True), (0.001, False)])
def test_networks_are_asked_once_each(signals, vocal, has_vocals):
    tagger, genres = MadeUp(vocal), MadeUp(vocal)
    heard = []

    def speech(mono_16k):
        heard.append(mono_16k.size)
        speech_track = MadeUp(vocal)
        speech_track.starts_s = np.arange(280) * 0.032
        return speech_track

    networks = Networks(musicnn=tagger, speech=speech, style=genres)
    parts = analyze([signals.drum_beat(100, 9.0, RATE_HZ)], RATE_HZ, networks=networks)
    assert_sound(parts)
    assert reasons(parts) == {}
    assert parts["vocals"].values["has_vocals"] is has_vocals
    assert parts["style"].values["genre"] == "rock"
    assert (tagger.calls, genres.calls) == (1, 1)
    assert heard == [9 * 16_000]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seconds=st.floats(0.01, 3.5),
    rate_hz=st.sampled_from([8000, 22_050, 44_100]),
    channels=st.integers(1, 3),
    kind=st.sampled_from(["noise", "impulse", "constant", "ramp", "tiny", "huge", "square"]),
)
def test_any_finite_audio_gets_an_answer(seconds, rate_hz, channels, kind):
    n = max(1, round(seconds * rate_hz))
    t = np.arange(n)
    sound = {
        "noise": lambda: np.random.default_rng(0).uniform(-1, 1, n),
        "impulse": lambda: (t == n // 2) * 1.0,
        "constant": lambda: np.ones(n),
        "ramp": lambda: t / n,
        "tiny": lambda: np.sin(t) * 1e-30,
        "huge": lambda: np.sin(t) * 1e9,
        "square": lambda: np.sign(np.sin(t * 0.05)),
    }[kind]()
    assert_sound(analyze([np.stack([sound] * channels, axis=1).astype(np.float32)], rate_hz))


def test_planar_samples_are_heard_as_interleaved_ones(signals):
    beat = signals.drum_beat(100, 6.0, 44_100)
    stereo = np.stack([beat, 0.5 * np.roll(beat, 5000)], axis=1)
    straight, turned = (analyze([order(stereo)], 44_100) for order in (np.ascontiguousarray, np.asfortranarray))
    assert {name: part.values for name, part in turned.items()} == {name: part.values for name, part in straight.items()}
