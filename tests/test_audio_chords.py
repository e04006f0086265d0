"""Chords of synthesised progressions over keys, voicings and instruments, by mir_eval's weighted overlap."""

from itertools import pairwise

import mir_eval
import numpy as np
import pytest

from keeptake.audio import chords as chords_module
from keeptake.audio.chords import find_chords
from keeptake.audio.frontend import SAMPLE_RATE_HZ, listen
from keeptake.audio.tonal import PITCH_CLASSES, tonality

PROGRESSIONS = {  # degrees above the tonic and quality
    "pop": ((0, "maj"), (7, "maj"), (9, "min"), (5, "maj")),
    "minor": ((0, "min"), (8, "maj"), (3, "maj"), (10, "maj")),
    "jazz": ((2, "min"), (7, "maj"), (0, "maj"), (9, "min")),
}
VOICINGS = {"close": (0, 0, 0), "first inversion": (12, 0, 0), "open": (0, 12, 0), "low bass": (-12, 0, 0)}
HARMONICS = {"sine": (1.0,), "strings": (1.0, 0.5, 0.33, 0.25, 0.2), "hollow": (1.0, 0.0, 0.4, 0.0, 0.2)}


def progression(name, tonic, voicing, instrument, *, chord_s=1.6, repeats=3, seed=0):
    """Samples, and the truth as mir_eval wants it."""
    t = np.arange(round(chord_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    sounds, labels = [], []
    for degree, quality in PROGRESSIONS[name] * repeats:
        root = (tonic + degree) % 12
        pitches = [step + shift for step, shift in zip(chords_module.TRIADS[quality], VOICINGS[voicing], strict=True)]
        waves = [
            weight * np.sin(2 * np.pi * 261.63 * 2 ** ((root + pitch) / 12) * number * t)
            for pitch in pitches
            for number, weight in enumerate(HARMONICS[instrument], start=1)
        ]
        sounds.append(sum(waves) * np.exp(-t / 1.5) * np.minimum(1, t / 0.01))
        labels.append(f"{PITCH_CLASSES[root]}:{quality}")
    samples = np.concatenate(sounds)
    edges = np.arange(len(labels) + 1) * chord_s
    return (0.5 * samples / np.abs(samples).max()).astype(np.float32), np.stack([edges[:-1], edges[1:]], axis=1), labels


def heard(samples):
    values, reason, _ = tonality(listen(samples.astype(np.float32)).long, duration_s=samples.size / SAMPLE_RATE_HZ)
    return reason if values is None else values["chords"]


def overlap(found, intervals, labels):
    spans = np.array([[chord["start_s"], chord["end_s"]] for chord in found])
    return mir_eval.chord.evaluate(intervals, labels, spans, [chord["label"] for chord in found])["majmin"]


@pytest.mark.parametrize("instrument", HARMONICS)
@pytest.mark.parametrize("voicing", VOICINGS)
@pytest.mark.parametrize("name", PROGRESSIONS)
def test_progressions_are_named(name, voicing, instrument):
    scores = [
        overlap(heard(samples), *truth)
        for tonic in (0, 3, 6, 10)
        for samples, *truth in [progression(name, tonic, voicing, instrument)]
    ]
    assert min(scores) > 0.93


@pytest.mark.parametrize("tonic", range(12))
def test_every_triad_has_its_name(tonic):
    samples, _, labels = progression("pop", tonic, "close", "strings")
    assert {chord["label"] for chord in heard(samples)} == set(labels)


def test_chords_under_drums(signals):
    samples, *truth = progression("minor", 9, "low bass", "strings")
    drums = signals.drum_beat(100, samples.size / SAMPLE_RATE_HZ, SAMPLE_RATE_HZ, chords_hz=((),))
    assert overlap(heard(samples + 0.5 * drums), *truth) > 0.93


def test_segments_follow_each_other_to_the_end():
    samples, *_ = progression("jazz", 4, "open", "strings")
    found = heard(samples)
    assert found[0]["start_s"] == 0
    assert [chord["end_s"] for chord in found[:-1]] == [chord["start_s"] for chord in found[1:]]
    assert found[-1]["end_s"] == pytest.approx(samples.size / SAMPLE_RATE_HZ, abs=0.2)
    assert all(one["label"] != other["label"] for one, other in pairwise(found))


@pytest.mark.parametrize("length_s", [6.0, 6.09, 6.17])
def test_the_last_chord_ends_with_the_take(length_s):
    """Frames reach beyond the end by up to half their distance: the last chord ended 88 ms after the take."""
    samples, *_ = progression("pop", 0, "close", "strings")
    found = heard(samples[: round(length_s * SAMPLE_RATE_HZ)])
    assert found[0]["start_s"] == 0.0
    assert found[-1]["end_s"] == pytest.approx(length_s, abs=1e-4)
    assert all(before["end_s"] == after["start_s"] < after["end_s"] for before, after in pairwise(found))


def test_a_pause_has_no_chord():
    samples, *_ = progression("pop", 0, "close", "strings", repeats=1)
    found = heard(np.concatenate([samples, np.zeros(4 * SAMPLE_RATE_HZ), samples]))
    silent = [chord for chord in found if chord["label"] == "N"]
    assert len(silent) == 1
    assert silent[0]["end_s"] - silent[0]["start_s"] == pytest.approx(4, abs=0.6)


def test_drums_and_noise_have_no_chords(signals):
    assert heard(signals.white_noise(10.0, SAMPLE_RATE_HZ)) == "atonal"
    flat = np.random.default_rng(0).uniform(0.8, 1, (50, 12))
    assert [chord["label"] for chord in find_chords(flat, pitch_classes=PITCH_CLASSES, frame_s=0.1, duration_s=5.0)] == ["N"]


def test_control_without_staying_a_frame_is_a_chord(signals, monkeypatch):
    samples, *_ = progression("minor", 9, "low bass", "strings")
    drums = signals.drum_beat(100, samples.size / SAMPLE_RATE_HZ, SAMPLE_RATE_HZ, chords_hz=((),))
    smooth = len(heard(samples + 2 * drums))
    monkeypatch.setattr(chords_module, "STAY", 1 / 25)
    assert len(heard(samples + 2 * drums)) > smooth + 5
