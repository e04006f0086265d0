"""Verdicts on what was asked against what was heard, and their total."""

import json
import math

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keeptake.audio.style import GENRES, MOODS
from keeptake.audio.tonal import PITCH_CLASSES
from keeptake.curation.adherence import ASKED, CONTRADICTIONS, HEARD, WEIGHTS, asked, judge, terms_of
from keeptake.curation.styles import GENRE_WORDS, MOOD_WORDS

SURE = {"tempo_confidence": 0.9, "key_confidence": 0.5, "has_tempo_change": False}


def judged(params, prompt, **heard):
    """One take's row."""
    row = asked(params, prompt) | dict.fromkeys(HEARD) | SURE | heard
    return judge(pl.DataFrame([row], schema={**ASKED, **HEARD})).row(0, named=True)


def test_what_a_parameter_says_settles_what_the_words_leave_open():
    words = "first 80 bpm, then 120 bpm, instrumental with vocals"
    assert asked({}, words)["conflicts"] == ["tempo", "vocals"]
    assert asked({"bpm": 120, "instrumental": True}, words)["conflicts"] == []


@pytest.mark.parametrize(
    ("wish_bpm", "heard_bpm", "verdict"),
    [
        (140, 140.0, "exact"),
        (140, 145.5, "exact"),
        (140, 134.5, "exact"),
        (140, 70.2, "half"),
        (140, 279.0, "double"),
        (70, 141.0, "double"),
        (140, 146.0, "wrong"),
        (140, 110.0, "wrong"),
        (140, 93.3, "wrong"),
        (140, 210.0, "wrong"),
    ],
)
def test_tempo_knows_octaves(wish_bpm, heard_bpm, verdict):
    row = judged({"bpm": wish_bpm}, "", tempo_bpm=heard_bpm)
    assert (row["tempo_verdict"], row["tempo_reason"]) == (verdict, None)
    assert row["adherence"] == {"exact": 1.0, "half": 0.7, "double": 0.7, "wrong": 0.0}[verdict]


@pytest.mark.parametrize("heard_bpm, verdict", [(119.0, "exact"), (125.0, "exact"), (62.0, "half"), (140.0, "wrong")])
def test_a_range_of_tempi_is_met_anywhere_in_it(heard_bpm, verdict):
    assert judged(None, "house, 120-128 bpm", tempo_bpm=heard_bpm)["tempo_verdict"] == verdict


@pytest.mark.parametrize(
    ("heard", "reason"),
    [
        ({"tempo_bpm": None}, "not-heard"),
        ({"tempo_bpm": 110.0, "has_tempo_change": True}, "tempo-changes"),
        ({"tempo_bpm": 110.0, "tempo_confidence": 0.3}, "unsure"),
        ({"tempo_bpm": 110.0, "tempo_confidence": None}, "unsure"),
        ({"tempo_bpm": 93.5, "tempo_confidence": 0.8}, "unsure"),
        ({"tempo_bpm": 187.0, "tempo_confidence": 0.8}, "unsure"),
    ],
)
def test_a_tempo_that_cannot_be_judged_says_why(heard, reason):
    row = judged({"bpm": 140}, "", **heard)
    assert (row["tempo_verdict"], row["tempo_reason"], row["adherence"]) == (None, reason, None)


def test_at_a_ratio_where_trackers_err_wrong_needs_a_surer_ear():
    assert judged({"bpm": 140}, "", tempo_bpm=105.0, tempo_confidence=0.8)["tempo_reason"] == "unsure"
    assert judged({"bpm": 140}, "", tempo_bpm=105.0, tempo_confidence=0.95)["tempo_verdict"] == "wrong"
    assert judged({"bpm": 140}, "", tempo_bpm=112.0, tempo_confidence=0.8)["tempo_verdict"] == "wrong"


def test_an_unsure_ear_may_agree_but_not_contradict():
    assert judged({"bpm": 140}, "", tempo_bpm=140.0, tempo_confidence=0.3)["tempo_verdict"] == "exact"


@pytest.mark.parametrize(
    ("wish", "heard", "verdict"),
    [
        ("C major", "C major", "exact"),
        ("Db major", "C# major", "exact"),
        ("C major", "G major", "fifth"),
        ("C major", "F major", "fifth"),
        ("C major", "A minor", "relative"),
        ("A minor", "C major", "relative"),
        ("A minor", "E minor", "fifth"),
        ("C major", "C minor", "wrong"),
        ("C major", "Eb minor", "wrong"),
        ("C minor", "A major", "wrong"),
    ],
)
def test_key(wish, heard, verdict):
    assert judged({"key": wish}, "", key=heard)["key_verdict"] == verdict


def test_a_key_heard_without_confidence_is_not_judged():
    row = judged({"key": "C major"}, "", key="F# minor", key_confidence=0.01)
    assert (row["key_verdict"], row["key_reason"]) == (None, "unsure")


@pytest.mark.parametrize(
    ("params", "prompt", "probability", "verdict", "reason"),
    [
        ({"instrumental": True}, "", 0.1, "as-asked", None),
        ({"instrumental": True}, "", 0.9, "unwanted", None),
        ({"instrumental": False}, "", 0.1, "missing", None),
        ({"instrumental": False}, "", 0.9, "as-asked", None),
        ({"customLyrics": "la la"}, "", 0.1, "missing", None),
        ({}, "with a singer", 0.1, "missing", None),
        ({}, "no vocals", 0.9, "unwanted", None),
        ({"instrumental": True}, "with a singer", 0.9, None, "contradictory-request"),
        ({"instrumental": False}, "no vocals", 0.9, None, "contradictory-request"),
        ({}, "instrumental with a singer", 0.9, None, "contradictory-request"),
        ({}, "dark trap", 0.9, None, "not-asked"),
        ({"instrumental": True}, "", 0.5, None, "unsure"),
        ({"instrumental": True}, "", None, None, "not-heard"),
    ],
)
def test_vocals(params, prompt, probability, verdict, reason):
    row = judged(params, prompt, vocals_probability=probability)
    assert (row["vocals_verdict"], row["vocals_reason"]) == (verdict, reason)


@pytest.mark.parametrize(
    ("wish_s", "heard_s", "verdict", "worth"),
    [
        (30, 31.9, "exact", 1.0),
        (100, 91.0, "exact", 1.0),
        (30, 15.0, "shorter", 0.5),
        (30, 60.0, "longer", 0.5),
        (1, 2.5, "exact", 1.0),
    ],
)
def test_duration(wish_s, heard_s, verdict, worth):
    row = judged({"duration": wish_s}, "", duration_s=heard_s)
    assert (row["duration_verdict"], row["adherence"]) == (verdict, worth)


@pytest.mark.parametrize(
    ("genre", "heard", "verdict", "reason"),
    [
        ("dark trap", "hip-hop", "as-asked", None),
        ("Heavy Metal", "metal", "as-asked", None),
        ("metal", "rock", "related", None),
        ("metal", "jazz", "other", None),
        ("orchestral", "jazz", None, "unknown-word"),
        ("jazz", None, None, "not-heard"),
        (None, "jazz", None, "not-asked"),
    ],
)
def test_genre(genre, heard, verdict, reason):
    row = judged({"genre": genre}, "", genre=heard)
    assert (row["genre_verdict"], row["genre_reason"]) == (verdict, reason)


@pytest.mark.parametrize(
    ("mood", "heard", "verdict"), [("melancholic", "sad", "as-asked"), ("chill", "party", "other"), ("tense", "sad", None)]
)
def test_mood(mood, heard, verdict):
    assert judged({"mood": mood}, "", mood=heard)["mood_verdict"] == verdict


def test_text_and_sound_are_compared_where_an_embedder_knows_both():
    assert judged({}, "", text_audio_cosine=0.25)["adherence"] == pytest.approx(0.5)
    assert judged({}, "", text_audio_cosine=-0.4)["adherence"] == 0.0
    assert judged({"bpm": 140}, "", text_audio_cosine=0.9, tempo_bpm=110.0)["adherence"] == pytest.approx(2 / 5)  # 1 at most
    assert judged({}, "")["text_audio_reason"] == "not-joint"


def test_the_total_is_the_weighted_mean_of_what_could_be_judged():
    row = judged(
        {"bpm": 140, "key": "C major", "instrumental": True, "duration": 30},
        "",
        tempo_bpm=70.0,
        key="G major",
        vocals_probability=0.9,
        duration_s=30.0,
    )
    assert row["adherence"] == pytest.approx((3 * 0.7 + 2 * 0.5 + 3 * 0 + 1 * 1) / (3 + 2 + 3 + 1))


def test_nothing_asked_is_no_score():
    assert judged(None, None, tempo_bpm=140.0)["adherence"] is None


def test_parameters_come_before_words_and_the_persons_words_before_the_enhanced():
    assert asked({"bpm": 126}, "140 bpm")["asked_tempo_low_bpm"] == 126
    assert asked({}, "140 bpm", "a track at 90 bpm")["asked_tempo_low_bpm"] == 140
    assert asked({}, "dark trap", "a track at 90 bpm in A minor, no vocals") == asked({}, "90 bpm in A minor, no vocals")


@pytest.mark.parametrize(
    ("value", "bpm"),
    [
        (0, None),
        (-3, None),
        ("140 BPM", 140),
        ("140", 140),
        (1e300, None),
        (True, None),
        (float("nan"), None),
        ("fast", None),
        ([], None),
    ],
)
def test_parameters_that_make_no_sense_say_nothing(value, bpm):
    assert asked({"bpm": value}, "")["asked_tempo_low_bpm"] == bpm


def test_terms_show_what_was_asked_and_heard():
    terms = terms_of(judged({"bpm": 140, "instrumental": True}, "", tempo_bpm=110.0, vocals_probability=0.1))
    assert terms["tempo"] == {"verdict": "wrong", "asked": 140.0, "heard": 110.0, "reason": None}
    assert terms["vocals"] == {"verdict": "as-asked", "asked": False, "heard": 0.1, "reason": None}
    assert terms["key"] == {"verdict": None, "asked": None, "heard": None, "reason": "not-asked"}
    json.dumps(terms)


def test_a_table_without_some_of_the_hearing_is_judged_by_the_rest():
    row = asked({"bpm": 140, "instrumental": True}, "")
    table = pl.DataFrame(
        [row | {"tempo_bpm": 140.0, "tempo_confidence": 0.9}],
        schema={**ASKED, "tempo_bpm": pl.Float64, "tempo_confidence": pl.Float64},
    )
    out = judge(table)
    assert out["adherence"].to_list() == [1.0]
    assert out["vocals_reason"].to_list() == ["not-heard"]
    assert "vocals_probability" not in out.columns
    assert judge(table.clear()).is_empty()


def test_every_family_of_the_taggers_has_words():
    assert GENRE_WORDS.keys() == GENRES.keys()
    assert MOOD_WORDS.keys() == MOODS.keys()


maybe = st.one_of
KEYS = st.sampled_from([f"{tonic} {mode}" for tonic in PITCH_CLASSES for mode in ("major", "minor")])
SHARE = st.floats(0, 1)


@settings(deadline=None, max_examples=60)  # the clock of a busy machine proves nothing
@given(
    params=st.fixed_dictionaries(
        {},
        optional={
            "bpm": maybe(st.none(), st.integers(-10, 400), st.text(max_size=8)),
            "key": maybe(st.none(), KEYS, st.text(max_size=8)),
            "instrumental": maybe(st.none(), st.booleans()),
            "duration": maybe(st.none(), st.floats(allow_nan=True)),
            "genre": maybe(st.none(), st.text(max_size=12), st.sampled_from(["jazz", "metal"])),
            "mood": maybe(st.none(), st.text(max_size=12), st.sampled_from(["sad", "chill"])),
        },
    ),
    prompt=st.text(max_size=60),
    heard=st.fixed_dictionaries(
        {
            "tempo_bpm": maybe(st.none(), st.floats(20, 320)),
            "tempo_confidence": maybe(st.none(), SHARE),
            "has_tempo_change": maybe(st.none(), st.booleans()),
            "key": maybe(st.none(), KEYS),
            "key_confidence": maybe(st.none(), SHARE),
            "vocals_probability": maybe(st.none(), SHARE),
            "duration_s": maybe(st.none(), st.floats(0.05, 1800)),
            "genre": maybe(st.none(), st.sampled_from(sorted(GENRES))),
            "mood": maybe(st.none(), st.sampled_from(sorted(MOODS))),
            "text_audio_cosine": maybe(st.none(), st.floats(-1, 1)),
        }
    ),
)
def test_each_term_has_a_verdict_or_a_reason_and_the_total_lies_between_0_and_1(params, prompt, heard):
    row = judged(params, prompt, **heard)
    for term in WEIGHTS:
        assert (row[f"{term}_verdict"] is None) != (row[f"{term}_reason"] is None), term
    any_judged = any(row[f"{term}_verdict"] for term in WEIGHTS)
    assert (row["adherence"] is not None) == any_judged
    if any_judged:
        assert math.isfinite(row["adherence"]) and 0 <= row["adherence"] <= 1


@settings(deadline=None, max_examples=60)
@given(wish=st.floats(60, 200), heard=st.floats(60, 200), confidence=SHARE)
def test_more_confidence_never_turns_agreement_into_contradiction(wish, heard, confidence):
    sure, less = (judged({"bpm": wish}, "", tempo_bpm=heard, tempo_confidence=c)["tempo_verdict"] for c in (1.0, confidence))
    assert less in (sure, None)
    assert less is not None or sure in CONTRADICTIONS


def test_labelled_contradictions_are_flagged_when_the_ear_is_perfect(dev_data):
    """The labels stand in for the hearing: what is left is parsing and verdicts, and they must miss nothing."""
    labels = {label["file"]: label for label in map(json.loads, (dev_data / "labels.jsonl").read_text().splitlines())}
    lines = (dev_data / "generations.jsonl").read_text().splitlines()[: len(labels)]
    checked = 0
    for record in map(json.loads, lines):
        label = labels[record["audioUrl"]]
        if label["subset"] == "case" or label.get("prompt_matches") is None:
            continue
        heard = {"tempo_bpm": label.get("bpm"), "key": label.get("key"), "duration_s": label["duration_s"]}
        heard["vocals_probability"] = {True: 1.0, False: 0.0}.get(label.get("vocals"))
        row = judged(record["generationParams"], record["userPrompt"], **heard)
        by_words = judged(None, record["userPrompt"], **heard)
        wrong = {term for term in ("tempo", "vocals", "key") if row[f"{term}_verdict"] in CONTRADICTIONS}
        wrong_by_words = {term for term in ("tempo", "vocals", "key") if by_words[f"{term}_verdict"] in CONTRADICTIONS}
        kind = {"bpm": {"tempo"}, "vocals": {"vocals"}, "key": {"key"}, None: set()}[label.get("mismatch_kind")]
        assert wrong == wrong_by_words == kind, record["userPrompt"]
        checked += 1
    assert checked > 100
