"""Cuts, captions, scrubbed texts and row hashes: what a row of a version says."""

from collections import Counter
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from keeptake.curation.captions import clip_tempo_bpm, clip_vocal_share, heard_caption, trainer_text
from keeptake.curation.leaks import PAIR, find_leaks
from keeptake.curation.policy import Audio, Captions, read_policy
from keeptake.curation.scrub import bare_url, pseudonym, scrub, scrub_values
from keeptake.curation.segments import Clip, clips, section_starts_s
from keeptake.curation.versions import ROW, apply, content_hash, diff, row_hash


def test_take_that_fits_is_one_clip():
    assert clips(29.9, Audio()) == [Clip(0.0, 29.9)]
    assert clips(0.5, Audio()) == []
    for cut in ("none", "head", "segments"):
        audio = Audio(cut=cut, min_clip_s=10.0, max_clip_s=20.0)
        for duration_s in (10.0, 15.0, 20.0):
            assert clips(duration_s, audio, sections_s=[12.0], downbeats_s=[11.0]) == [Clip(0.0, duration_s)]


@pytest.mark.parametrize("duration_s", [29.91, 30.0, 31.4, 33.0, 39.9, 59.9, 61.3, 180.0, 299.0])
@pytest.mark.parametrize("tempo_bpm", [None, 61.0, 120.0, 174.0])
def test_long_takes_are_cut_into_clips_of_a_trainers_length(duration_s, tempo_bpm):
    downbeats_s = np.arange(0.2, duration_s, 240 / tempo_bpm).tolist() if tempo_bpm else []
    found = clips(duration_s, Audio(), downbeats_s=downbeats_s, sections_s=[16.0, 40.0, 90.5])
    assert all(29.9 / 3 <= clip.end_s - clip.start_s <= 29.9 + 1e-5 for clip in found)
    assert all(before.end_s == after.start_s for before, after in pairwise(found))
    assert (found[0].start_s, found[-1].end_s) == (0.0, duration_s)
    assert found == clips(duration_s, Audio(), downbeats_s=downbeats_s, sections_s=[16.0, 40.0, 90.5])


def test_cuts_fall_on_sections_then_on_bars():
    bars = np.arange(0.0, 100.0, 2.0).tolist()
    assert clips(100.0, Audio(), downbeats_s=bars)[0].end_s == 28.0
    assert clips(100.0, Audio(), downbeats_s=bars, sections_s=[16.3, 33.0])[0].end_s == 16.3
    assert clips(100.0, Audio(), downbeats_s=bars, sections_s=[5.0])[0].end_s == 28.0


def test_no_take_ends_in_a_stub():
    """Takes of 31 s, which providers send by the thousand, gave a clip of 1 s with the caption of the whole."""
    assert clips(31.0, Audio()) == [Clip(0.0, 15.5), Clip(15.5, 31.0)]
    bars = np.arange(0.2, 31.0, 2.0).tolist()
    assert clips(31.0, Audio(), downbeats_s=bars) == [Clip(0.0, 16.2), Clip(16.2, 31.0)]
    assert clips(31.0, Audio(), downbeats_s=bars, sections_s=[0.2, 12.2, 29.0]) == [Clip(0.0, 12.2), Clip(12.2, 31.0)]
    assert clips(31.0, Audio(), downbeats_s=[0.2, 30.5]) == [Clip(0.0, 15.5), Clip(15.5, 31.0)]
    assert [clip.end_s for clip in clips(65.0, Audio())] == [29.9, 47.45, 65.0]
    assert [clip.end_s for clip in clips(70.0, Audio())] == [29.9, 59.8, 70.0]  # a rest of a third of the longest is a clip
    assert clips(3.0, Audio()) == [Clip(0.0, 3.0)]  # a whole take may be as short as min_clip_s says
    assert clips(31.0, Audio(cut="head")) == [Clip(0.0, 29.9)]


def test_a_rest_that_two_clips_cannot_share_is_left_out_as_the_policy_says():
    assert clips(35.0, Audio(min_clip_s=20.0)) == [Clip(0.0, 29.9)]
    assert clips(45.0, Audio(min_clip_s=20.0)) == [Clip(0.0, 22.5), Clip(22.5, 45.0)]


def test_policy_says_what_becomes_of_long_takes():
    assert clips(100.0, Audio(cut="none")) == []
    assert clips(100.0, Audio(cut="head")) == [Clip(0.0, 29.9)]
    assert len(clips(100.0, Audio(cut="segments"))) == 4


def test_sections_begin_in_order():
    assert section_starts_s({"sections": [{"start_s": 8.0, "end_s": 9.0}, {"start_s": 0, "end_s": 8.0}]}) == [0.0, 8.0]
    assert section_starts_s({}) == []


@pytest.mark.parametrize(
    ("facts", "caption"),
    [
        ({}, ""),
        ({"genre": "trap", "mood": "dark"}, "dark trap"),
        ({"instruments": ["synth", "drums"]}, "music with synth and drums"),
        ({"genre": "jazz", "instruments": ["a", "b", "c", "d"]}, "jazz with a, b and c"),
        ({"tempo_bpm": 139.6, "tempo_confidence": 0.9}, "140 BPM"),
        ({"tempo_bpm": 139.6, "tempo_confidence": 0.1}, ""),
        ({"tempo_bpm": 139.6, "tempo_confidence": 0.3}, "140 BPM"),
        ({"tempo_bpm": 139.6, "tempo_confidence": 0.29}, ""),
        ({"key": "A minor", "key_confidence": 0.8, "has_vocals": True}, "in A minor, with vocals"),
        ({"key": "A minor", "key_confidence": 0.1}, "in A minor"),
        ({"key": "A minor", "key_confidence": 0.09}, ""),
    ],
)
def test_captions_say_what_was_heard_with_certainty(facts, caption):
    assert heard_caption(facts) == caption


def test_clip_has_the_tempo_of_its_own_beats_in_the_octave_of_its_take():
    slow, fast = np.arange(0, 30, 0.5), np.arange(30, 60, 0.4)
    beats_s = np.concatenate([slow, fast]).tolist()

    def tempo_bpm(clip, take_bpm):
        return clip_tempo_bpm(clip, beats_s, take_bpm, has_tempo_change=True)

    assert tempo_bpm(Clip(0, 29), 120.0) == pytest.approx(120.0)
    assert tempo_bpm(Clip(31, 59), 120.0) == pytest.approx(150.0)
    assert tempo_bpm(Clip(31, 59), 75.0) == pytest.approx(75.0)
    assert tempo_bpm(Clip(31, 32), 120.0) == 120.0
    assert tempo_bpm(Clip(0, 29), None) is None


def test_a_clip_of_a_steady_take_has_the_tempo_of_the_take():
    """Captions said 138 BPM of a whole take of 137: the median of beats that stand on frames."""
    beats_s = np.round(np.arange(0, 10, 60 / 137) / 0.01).astype(int) * 0.01
    assert clip_tempo_bpm(Clip(0, 10), beats_s.tolist(), 137.0, has_tempo_change=False) == 137.0
    coarse = np.round(np.arange(0, 10, 60 / 137) / 0.02).astype(int) * 0.02
    changing_bpm = clip_tempo_bpm(Clip(0, 10), coarse.tolist(), 137.0, has_tempo_change=True)
    assert changing_bpm == pytest.approx(137.0, abs=0.4)
    assert 60 / np.median(np.diff(coarse)) == pytest.approx(136.36, abs=0.01)  # the control: the median of the same beats


def test_share_of_voice_is_that_of_the_clip():
    assert clip_vocal_share(Clip(10, 20), [[0, 12], [18, 40]]) == pytest.approx(0.4)
    assert clip_vocal_share(Clip(10, 20), []) == 0.0
    assert clip_vocal_share(Clip(10, 20), [[0, 5], [12, 17], [25, 40]]) == pytest.approx(0.5)


def test_policy_says_which_text_a_trainer_reads():
    texts = [trainer_text("dark beat", "trap, 140 BPM", Captions(trainer_reads=reads)) for reads in ("prompt", "heard", "both")]
    assert texts == ["dark beat", "trap, 140 BPM", "dark beat. trap, 140 BPM"]
    assert trainer_text("dark beat", "", Captions(trainer_reads="heard")) == "dark beat"
    assert trainer_text("dark beat", "", Captions(trainer_reads="both")) == "dark beat"
    assert trainer_text("", "", Captions(trainer_reads="both")) == "music"


@pytest.mark.parametrize(
    ("text", "clean", "kinds"),
    [
        ("mail me: a.b+c@mail.example.org!", "mail me: <email>!", {"email": 1}),
        ("jürgen@müller.example", "<email>", {"email": 1}),
        ("me [at] site [dot] com", "<email>", {"email": 1}),
        ("call +49 170 1234567 or (030) 123 45 67", "call <phone> or <phone>", {"phone": 2}),
        ("555-123-4567", "<phone>", {"phone": 1}),
        ("ftp://bob:secret@host.example/x.wav", "<url>", {"url": 1}),
        ("https://cdn.example/x.wav", "https://cdn.example/x.wav", {}),
        ("trap 140 bpm 808s 4/4 2019-2021 in A minor", "trap 140 bpm 808s 4/4 2019-2021 in A minor", {}),
        ("120 128 130 132 140 bpm, 0.25 0.125", "120 128 130 132 140 bpm, 0.25 0.125", {}),
        ("@home vibes, 100% lofi", "@home vibes, 100% lofi", {}),
    ],
)
def test_personal_data_leaves_a_mark_and_music_stays(text, clean, kinds):
    found: Counter[str] = Counter()
    assert scrub(text, found) == clean
    assert found == kinds


@pytest.mark.parametrize("piece", ["a.", "a@", "a+", "a (at) ", "a://", "0-", "a "])
def test_the_work_of_scrubbing_grows_with_the_text_alone(piece):
    """A prompt of ten thousand letters took five seconds; this one would take days, and ends at the suite's time limit."""
    assert scrub(piece * 200_000) is not None


def test_personal_data_inside_parameters_is_found():
    assert scrub_values({"mood": "for x@y.zz", "tags": ["call 0170 1234567"], "bpm": 140}) == {
        "mood": "for <email>",
        "tags": ["call <phone>"],
        "bpm": 140,
    }


def test_pseudonyms_are_keyed_and_stable():
    assert pseudonym("user1", "key") == pseudonym("user1", "key") != pseudonym("user1", "other")
    assert "user1" not in pseudonym("user1", "key")


def test_urls_lose_user_query_and_fragment():
    assert bare_url("https://me:pw@cdn.example:8443/a/b.mp3?sig=1#t") == "https://cdn.example:8443/a/b.mp3"
    assert bare_url("audio/a.wav?x") == "audio/a.wav" and bare_url("http://[") == ""


def rows(*ids: str, **columns: object) -> pl.DataFrame:
    found = [{**dict.fromkeys(ROW), "id": name, "generation_id": f"gen_{name}", "instruments": [], **columns} for name in ids]
    for row in found:
        row["row_sha256"] = row_hash(row)
    return pl.DataFrame(found, schema={**ROW, "row_sha256": pl.String})


def test_diff_applied_to_the_old_version_gives_the_new_one():
    old = rows("a", "b", "c", text="old")
    new = pl.concat([rows("b", text="old"), rows("c", "d", text="new")])
    changes = diff(old, new)
    assert changes.select("id", "change").rows() == [("a", "removed"), ("c", "changed"), ("d", "added")]
    assert changes.filter(pl.col("id") == "c")["columns"].to_list() == [["text"]]
    assert apply(old, changes, new).equals(new)
    assert not apply(old, changes.filter(pl.col("change") != "changed"), new).equals(new)


def test_rows_of_an_earlier_release_can_be_told_apart_from_newer_ones():
    """A version whose rows lack a column of today's could not be compared with the next one."""
    old, new = rows("a", text="old").drop("take_loudness_lufs"), rows("a", text="new", take_loudness_lufs=-9.0)
    assert diff(old, new)["columns"].to_list() == [["text", "take_loudness_lufs"]]


def test_version_is_named_by_rows_policy_and_formats():
    policy, other = (read_policy({"name": "p", "select": {"min_score": score}}, origin="t") for score in (0.5, 0.6))
    names = {
        content_hash(rows("a", "b"), policy, {"clips": "1"}),
        content_hash(rows("a", "b", text="x"), policy, {"clips": "1"}),
        content_hash(rows("a", "b"), other, {"clips": "1"}),
        content_hash(rows("a", "b"), policy, {"clips": "2"}),
    }
    assert len(names) == 4
    assert content_hash(rows("b", "a"), policy, {"clips": "1"}) in names


LEAKY = {
    "exact": {"audio_sha256": ["same", "same", "z"]},
    "fingerprint": {"audio_sha256": ["copy", "original", "z"]},
    "excerpt": {"audio_sha256": ["part", "whole", "z"]},
    "embedding": {"audio_sha256": ["pitched", "plain", "z"]},
    "prompt": {"generation_id": ["asked", "asked again", "z"]},
    "user": {"user": ["u", "u", "z"]},
}


def told(kind: str | None, *, hold_out_users: bool = True) -> pl.DataFrame:
    """A version of three rows in train, test and train, with one planted leak."""
    columns = {"id": ["a", "b", "c"], "split": ["train", "test", "train"], "user": ["u1", "u2", "u3"]}
    columns |= {"generation_id": ["g1", "g2", "g3"], "audio_sha256": ["s1", "s2", "s3"]} | (LEAKY[kind] if kind else {})
    vectors = {
        "pitched": np.array([1.0, 0.01]),
        "plain": np.array([1.0, 0.0]),
        "s1": np.array([0.0, 1.0]),
        "z": np.array([1.0, 1.0]),
    }
    return find_leaks(
        pl.DataFrame(columns),
        pl.DataFrame({"first_sha256": ["copy"], "second_sha256": ["original"]}),
        excerpts=pl.DataFrame({"first_sha256": ["part"], "second_sha256": ["whole"]}),
        prompt_keys=pl.DataFrame({"generation_id": ["asked", "asked again", "g1"], "prompt_key": ["beat", "beat", "other"]}),
        hold_out_users=hold_out_users,
        vectors=vectors,
    )


@pytest.mark.parametrize("kind", LEAKY)
def test_planted_copies_of_every_kind_are_found(kind):
    assert told(kind).rows() == [(kind, "a", "b", "test and train")]


def test_a_leak_among_many_rows_is_told_by_the_first_of_each_split_whatever_their_order():
    columns = {"id": ["b", "a", "c"], "split": ["train", "train", "test"], "audio_sha256": ["same"] * 3}
    rows = pl.DataFrame(columns | {"generation_id": ["g1", "g2", "g3"], "user": ["u"] * 3})
    nothing, keys = pl.DataFrame(schema=PAIR), pl.DataFrame(schema={"generation_id": pl.String, "prompt_key": pl.String})
    for found in (find_leaks(each, nothing, excerpts=nothing, prompt_keys=keys) for each in (rows, rows.reverse())):
        assert found.rows() == [("exact", "a", "c", "test and train")]


def test_no_leak_is_found_where_there_is_none():
    assert told(None).is_empty()
    assert told("user", hold_out_users=False).is_empty()
