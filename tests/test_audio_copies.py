"""Pieces pasted into takes that never repeat themselves, and what sounds alike without being a copy."""

import functools
import io
import json

import numpy as np
import pytest
import soundfile

from keeptake.audio import copies as copies_module
from keeptake.audio.copies import copies

RATE_HZ = 22_050
LENGTH_S = 12.0
NONE = {"copied_spans": [], "copied_share": 0.0}
FROM_S, TO_S, PASTED_S = 1.31, 7.174, 3.0


def found(samples, sample_rate_hz=RATE_HZ):
    return copies(samples.astype(np.float32), sample_rate_hz=sample_rate_hz)


def noise(samples, level_dbfs, seed=9):
    return 10 ** (level_dbfs / 20) * np.random.default_rng(seed).standard_normal(samples.size)


@functools.cache
def played(seed=1, *, score=1, duration_s=LENGTH_S, sample_rate_hz=RATE_HZ, beat_s=0.23):
    """Two voices of plucked notes over drums: `score` says which notes, `seed` how they are played; read only.

    No stroke is like another: each has its own noise, phase, pitch within some cents, and a time within some milliseconds.
    """
    notes, hand = np.random.default_rng(score), np.random.default_rng([seed, 77])
    out = np.zeros(round((duration_s + 2) * sample_rate_hz))
    t = np.arange(round(0.4 * sample_rate_hz)) / sample_rate_hz
    fade, strokes = np.exp(-t * 6), [np.exp(-t * 20), np.exp(-t * 60)]
    for number in range(round(duration_s / beat_s)):
        sound = 0.3 * np.diff(hand.standard_normal(t.size + 1)) * strokes[number % 4 > 0]
        for low in (45, 57):
            hz = 440 * 2 ** ((low + notes.choice([0, 2, 3, 5, 7, 10]) - 69 + hand.normal(0, 0.05)) / 12)
            sound += 0.4 * fade * np.sin(2 * np.pi * hz * t + hand.uniform(0, 6) + np.sin(2 * np.pi * hz * t))
        at = round((number * beat_s + 0.02 + hand.normal(0, 0.005)) * sample_rate_hz)
        out[at : at + t.size] += hand.uniform(0.6, 1) * sound
    out = 0.7 * out[: round(duration_s * sample_rate_hz)] / np.abs(out).max()
    out.flags.writeable = False
    return out


def pasted(samples, *, sample_rate_hz=RATE_HZ, gain=1.0, from_s=FROM_S, to_s=TO_S, length_s=PASTED_S):
    out = samples.copy()
    source, place, length = (round(s * sample_rate_hz) for s in (from_s, to_s, length_s))
    out[place : place + length] = gain * samples[source : source + length]
    return out


def lossy(samples):
    """Written as MP3 at 40 kbit/s and read back."""
    file = io.BytesIO()
    quality = {"bitrate_mode": "CONSTANT", "compression_level": 0.8}
    soundfile.write(file, samples, RATE_HZ, format="MP3", subtype="MPEG_LAYER_III", **quality)
    return soundfile.read(io.BytesIO(file.getvalue()), dtype="float32")[0]


def is_span(span, *, start_s=TO_S, end_s=TO_S + PASTED_S, lag_s=TO_S - FROM_S):
    return (
        span["start_s"] == pytest.approx(start_s, abs=0.25)
        and span["end_s"] == pytest.approx(end_s, abs=0.25)
        and span["lag_s"] == pytest.approx(lag_s, abs=1e-3)
    )


@pytest.mark.parametrize(
    "changed",
    [
        lambda take: pasted(take),
        lambda take: pasted(take, gain=0.5),
        lambda take: 0.01 * pasted(take),
        lambda take: pasted(take) + noise(take, -50),
        lambda take: lossy(pasted(take, gain=0.5)),
    ],
    ids=["plain", "quieter", "all quiet", "in noise", "a quieter one in an MP3"],
)
def test_a_pasted_piece_is_found_where_it_lies(changed):
    values = found(changed(played()))
    assert len(values["copied_spans"]) == 1 and is_span(values["copied_spans"][0])
    assert values["copied_share"] == pytest.approx(PASTED_S / LENGTH_S, abs=0.03)
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert all(type(value) is float for value in (values["copied_share"], *values["copied_spans"][0].values()))


@pytest.mark.parametrize(("sample_rate_hz", "samples_later"), [(16_000, 0), (16_000, 1), (22_050, 1), (22_050, 2), (44_100, 5)])
def test_lags_between_samples_and_other_rates(sample_rate_hz, samples_later):
    to_s = TO_S + samples_later / sample_rate_hz
    values = found(
        pasted(played(sample_rate_hz=sample_rate_hz), sample_rate_hz=sample_rate_hz, to_s=to_s), sample_rate_hz=sample_rate_hz
    )
    assert len(values["copied_spans"]) == 1 and is_span(values["copied_spans"][0], lag_s=to_s - FROM_S)


def test_a_bar_four_times_is_three_copies_in_one_span():
    bar = played(duration_s=2.3)
    values = found(np.tile(bar, 4))
    assert len(values["copied_spans"]) == 1
    assert is_span(values["copied_spans"][0], start_s=2.3, end_s=9.2, lag_s=2.3)
    assert values["copied_share"] == pytest.approx(0.75, abs=0.04)


def test_two_copies_of_different_lags():
    take = pasted(pasted(played()), from_s=4.4, to_s=10.5, length_s=1.5)
    first, second = found(take)["copied_spans"]
    assert is_span(first) and is_span(second, start_s=10.5, end_s=12.0, lag_s=6.1)


@pytest.mark.parametrize("level_dbfs", [None, -60])
def test_a_rest_inside_does_not_split_a_copy(level_dbfs):
    take = played().copy()
    take[round(2.6 * RATE_HZ) : round(3.0 * RATE_HZ)] = 0
    take = pasted(take)
    values = found(take if level_dbfs is None else take + noise(take, level_dbfs))
    assert len(values["copied_spans"]) == 1 and is_span(values["copied_spans"][0])


def test_silence_around_copies_is_not_copied():
    rest = np.zeros(3 * RATE_HZ)
    piece = played(duration_s=3.0)
    (span,) = found(np.concatenate([piece, rest, piece, rest]))["copied_spans"]
    assert is_span(span, start_s=6.0, end_s=9.0, lag_s=6.0)


@pytest.mark.parametrize("seed", range(6))
def test_what_is_played_never_repeats(seed):
    assert found(played(seed, score=seed)) == NONE


@pytest.mark.parametrize("beat_s", [0.23, 0.2323], ids=["as fast", "slower"])
def test_a_phrase_played_again_is_no_copy(beat_s):
    again = played(2, score=3, duration_s=6.0, beat_s=beat_s)
    assert found(np.concatenate([played(1, score=3, duration_s=6.0), again])) == NONE


def phrase_of_a_machine():
    """The same samples twice, under other music as loud."""
    phrase = played(3, duration_s=6.0)
    return np.concatenate([phrase, phrase]) + played(4, score=4)


def test_a_phrase_under_other_music_as_loud_is_no_copy():
    assert found(phrase_of_a_machine()) == NONE


def test_a_stretched_copy_is_none():
    take = played().copy()
    piece = take[: 5 * RATE_HZ]
    slower = np.interp(np.arange(0, piece.size - 1, 1 / 1.01), np.arange(piece.size), piece)
    take[6 * RATE_HZ : 6 * RATE_HZ + slower.size] = slower
    assert found(take) == NONE


def tones(*pitches_hz, harmonics=1):
    t = np.arange(round(LENGTH_S * RATE_HZ)) / RATE_HZ
    return 0.1 * sum(np.sin(2 * np.pi * hz * k * t + k) / k for hz in pitches_hz for k in range(1, harmonics + 1))


@pytest.mark.parametrize(
    "steady",
    [
        tones(440.0),
        tones(50.0),
        tones(220.0, 277.18, 329.63),
        tones(110.0, harmonics=20),
        tones(110.0, 111.1, harmonics=9),
        tones(110.0, 110.3, 164.8, 165.4, 220.7, harmonics=7),
        tones(146.8, 146.8 * 1.4983, harmonics=9) + 0.003 * noise(tones(1.0), 0),
        noise(tones(1.0), -12),
        noise(tones(1.0), -90),
        noise(tones(1.0), -12) * (np.arange(tones(1.0).size) % 11_025 < 5000),
    ],
    ids=["sine", "low sine", "chord", "sawtooth", "beating", "pad", "fifth in noise", "noise", "faint noise", "pulsed noise"],
)
def test_what_goes_on_and_on_is_no_copy(steady):
    assert found(steady) == NONE


@pytest.mark.parametrize("seconds", [0, 1 / RATE_HZ, 0.1, 0.2, 0.3, 1.0, 1.5, 1.99])
def test_too_short_to_hold_a_copy(seconds):
    assert found(played()[: round(seconds * RATE_HZ)]) == NONE
    assert found(np.ones(round(seconds * RATE_HZ))) == NONE


@pytest.mark.parametrize("height", [0.0, 0.5, 1e6, 3e38])
@pytest.mark.parametrize("kind", ["steady", "click", "step"])
def test_what_is_no_music_has_no_copy(kind, height):
    samples = np.full(10 * RATE_HZ, height if kind == "steady" else 0.0)
    samples[5 * RATE_HZ :][: 1 if kind == "click" else None] = height
    assert found(samples) == NONE


@pytest.mark.parametrize("height", [1.0, 1e4, 3e38])
def test_a_click_does_not_hide_a_copy(height):
    take = pasted(played())
    take[6 * RATE_HZ] = height
    assert any(is_span(span) for span in found(take)["copied_spans"])


def test_control_without_asking_for_change_a_held_chord_is_copied(monkeypatch):
    monkeypatch.setattr(copies_module, "MOST_HELD", 2.0)
    assert found(tones(220.0, 277.18, 329.63))["copied_share"] > 0.5


def test_control_with_less_likeness_a_phrase_under_other_music_is_copied(monkeypatch):
    monkeypatch.setattr(copies_module, "LEAST_CORRELATION", 0.3)
    monkeypatch.setattr(copies_module, "USUAL_CORRELATION", 0.3)
    assert found(phrase_of_a_machine())["copied_share"] > 0.2


def with_a_stroke():
    """A copy with a stroke over it that its source lacks."""
    take = pasted(played())
    stroke = slice(round(8.45 * RATE_HZ), round(8.55 * RATE_HZ))
    take[stroke] += 0.07 * np.random.default_rng(5).standard_normal(take[stroke].size)
    return take


def test_a_stroke_over_a_copy_does_not_split_it():
    values = found(with_a_stroke())
    assert len(values["copied_spans"]) == 1 and is_span(values["copied_spans"][0])


def test_control_without_bridges_a_stroke_splits_it(monkeypatch):
    monkeypatch.setattr(copies_module, "MOST_GAP", 0)
    assert len(found(with_a_stroke())["copied_spans"]) == 2
