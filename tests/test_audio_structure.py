"""Sections: boundaries on the bar, letters that return, one section where nothing changes."""

import json
from itertools import pairwise

import numpy as np
import pytest

from keeptake.audio.frontend import LONG_HOP, SAMPLE_RATE_HZ, SHORT_HOP, listen
from keeptake.audio.rhythm import rhythm
from keeptake.audio.structure import _letters, bar_starts, named_sections, novelty, section_labels, section_starts, structure
from keeptake.audio.tonal import tonality

FRAME_RATE_HZ = SAMPLE_RATE_HZ / SHORT_HOP


def hear(samples: np.ndarray):
    heard = listen(samples.astype(np.float32))
    chroma = np.zeros((len(heard.long), 12)) if heard.is_silent else tonality(heard.long, duration_s=heard.duration_s)[2]
    rates = {"frame_rate_hz": FRAME_RATE_HZ, "chroma_rate_hz": SAMPLE_RATE_HZ / LONG_HOP}
    values, _ = rhythm(heard.mel, chroma, **rates, duration_s=heard.duration_s)
    return structure(heard.mel, frame_rate_hz=FRAME_RATE_HZ, duration_s=heard.duration_s, rhythm=values)


@pytest.mark.parametrize(("tempo_bpm", "sections"), [(120, "ABA"), (100, "ACA"), (128, "BCBC"), (96, "ABCA")])
def test_sections_and_their_return(signals, tempo_bpm, sections):
    values, reason = hear(signals.song(tempo_bpm, sections, 8, SAMPLE_RATE_HZ))
    assert reason is None
    bar_s = 4 * 60 / tempo_bpm
    starts_s = [section["start_s"] for section in values["sections"]]
    assert starts_s == pytest.approx([8 * bar_s * number for number in range(len(sections))], abs=0.1)
    letters = {letter: chr(ord("A") + number) for number, letter in enumerate(dict.fromkeys(sections))}
    assert [section["label"] for section in values["sections"]] == [letters[letter] for letter in sections]
    json.dumps(values, allow_nan=False)


def test_sections_cover_the_clip_without_gaps(signals):
    samples = signals.song(110, "ABAC", 6, SAMPLE_RATE_HZ)
    sections = hear(samples)[0]["sections"]
    assert sections[0]["start_s"] == 0
    assert sections[-1]["end_s"] == pytest.approx(samples.size / SAMPLE_RATE_HZ)
    assert all(before["end_s"] == after["start_s"] for before, after in pairwise(sections))


@pytest.mark.parametrize("tempo_bpm", [80, 120, 160])
def test_beat_that_never_changes_is_one_section(signals, tempo_bpm):
    values, _ = hear(signals.drum_beat(tempo_bpm, 30, SAMPLE_RATE_HZ))
    assert [section["label"] for section in values["sections"]] == ["A"]


@pytest.mark.parametrize("frequency_hz", [110, 440, 1760, 5000])
def test_steady_tone_is_one_section(signals, frequency_hz):
    """The steps at the file's ends, heard as clicks in empty bands, once made its first four seconds a section."""
    values, _ = hear(signals.sine(frequency_hz, 12, SAMPLE_RATE_HZ))
    assert [section["label"] for section in values["sections"]] == ["A"]


def test_without_a_pulse_there_are_sections_but_no_loop(signals):
    samples = np.concatenate([signals.white_noise(16, SAMPLE_RATE_HZ), signals.sine(330, 16, SAMPLE_RATE_HZ)])
    values, _ = hear(samples)
    assert values["is_loop"] is values["loop_bars"] is values["seam_score"] is None
    assert [section["start_s"] for section in values["sections"]] == pytest.approx([0, 16], abs=2)


def test_silence_and_a_second_say_why():
    assert hear(np.zeros(8 * SAMPLE_RATE_HZ)) == (None, "silent")
    assert hear(np.ones(SAMPLE_RATE_HZ)) == (None, "too-short")


def test_likeness_of_a_bar_to_itself_is_no_novelty():
    """With the diagonal counted, unrelated bars looked like a boundary at every bar, and most near the ends."""
    levels = np.random.default_rng(0).normal(0, 6, (24, 32))
    assert np.abs(novelty(levels)).max() < 0.05
    step = levels + np.where(np.arange(24) < 12, 0, 12)[:, None]
    assert section_starts(novelty(step)) == [12]


def test_neighbours_of_one_label_are_one_section():
    sections = named_sections([0.0, 8.0, 16.0], ["A", "A", "B"], 20.0)
    assert [(section["start_s"], section["end_s"]) for section in sections] == [(0.0, 16.0), (16.0, 20.0)]


def test_labels_follow_likeness_not_order():
    rng = np.random.default_rng(1)
    verse, chorus = rng.normal(0, 10, 32), rng.normal(0, 10, 32)
    levels = np.concatenate([mean + rng.normal(0, 2, (6, 32)) for mean in (chorus, verse, chorus, verse)])
    assert section_labels(levels, [0, 6, 12, 18]) == ["A", "B", "A", "B"]
    assert [_letters(number) for number in (0, 25, 26, 52)] == ["A", "Z", "AA", "BA"]


def test_upbeat_and_rest_belong_to_their_neighbours():
    heard = {"downbeats_s": [0.3, 2.3, 4.3, 6.3], "beats_s": []}
    assert bar_starts(heard, 8.0).tolist() == [0.0, 2.3, 4.3, 6.3]
    assert bar_starts(heard, 7.1).tolist() == [0.0, 2.3, 4.3]
    late = {"downbeats_s": [1.5, 3.5, 5.5], "beats_s": []}
    assert bar_starts(late, 7.5).tolist() == [0.0, 1.5, 3.5, 5.5]
    assert bar_starts(None, 5.5).tolist() == [0.0, 2.0, 4.0]
