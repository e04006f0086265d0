"""What a clip contradicts is not in the text that a trainer reads."""

import polars as pl
import pytest

from keeptake.curation.contradictions import contradicted, without
from keeptake.curation.prompts import parse_prompt

HEARD = {"tempo_bpm": 90.0, "tempo_confidence": 0.95, "key": "A minor", "key_confidence": 0.5, "vocals_probability": 0.05}


def terms(prompt, *, beside_caption=False, **heard):
    return contradicted(pl.DataFrame([{"prompt": prompt} | HEARD | heard]), beside_caption=beside_caption)[0]


@pytest.mark.parametrize(
    ("prompt", "heard", "denied"),
    [
        ("dark trap, 140 BPM", {}, {"tempo"}),
        ("dark trap, 140 BPM", {"tempo_confidence": 0.2}, set()),  # the ear may be wrong
        ("dark trap, 90 BPM, in A minor, no vocals", {}, set()),
        ("a ballad in F# major with a singer", {}, {"key", "vocals"}),
        ("instrumental", {"vocals_probability": 0.9}, {"vocals"}),
        ("instrumental", {"vocals_probability": 0.5}, set()),
        ("first 80 bpm, then 120 bpm", {}, {"tempo"}),  # both cannot be
        ("rain on a tin roof", {}, set()),
    ],
)
def test_terms_that_a_clip_does_not_bear_out(prompt, heard, denied):
    assert terms(prompt, **heard) == denied


def test_beside_a_caption_one_tempo_and_one_key_are_named():
    assert terms("180 BPM, in C major") == set()  # counted double, the relative key: not wrong
    assert terms("180 BPM, in C major", beside_caption=True) == {"tempo", "key"}


def test_what_was_not_heard_denies_nothing():
    assert contradicted(pl.DataFrame({"prompt": ["140 BPM, in C major, no vocals"]}), beside_caption=True) == [set()]


@pytest.mark.parametrize(
    ("prompt", "denied", "left"),
    [
        ("dark trap, 140 BPM, heavy 808s", {"tempo"}, "dark trap, heavy 808s"),
        ("140 BPM, dark trap", {"tempo"}, "dark trap"),
        ("dark trap, no vocals", {"vocals"}, "dark trap"),
        ("Soft piano. Tempo: 72.5 bpm. In Eb major.", {"tempo"}, "Soft piano. In Eb major."),
        ("Soft piano. In Eb major.", {"key"}, "Soft piano."),
        ("make it 140 BPM with a choir", {"vocals"}, ""),
        ("line one\n90 bpm\nline two", {"tempo"}, "line one\nline two"),
        ("dark trap, 140 BPM", set(), "dark trap, 140 BPM"),
        ("140 beats, per minute", {"tempo"}, "140 beats, per minute"),  # asks for no tempo as it is read
        ("", {"tempo"}, ""),
        ("dark trap, ", set(), "dark trap, "),
        ("dark trap, instrumental with vocals, heavy 808s", {"vocals"}, "dark trap, heavy 808s"),  # it contradicts itself
        ("90 bpm or 140 bpm, heavy 808s", {"tempo"}, "heavy 808s"),
    ],
)
def test_whole_clauses_go(prompt, denied, left):
    assert without(prompt, denied) == left
    wish = parse_prompt(without(prompt, denied))
    assert "tempo" not in denied or wish.tempo_bpm is None
