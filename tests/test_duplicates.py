"""Copies are found with their evidence, and what is no copy is not."""

import itertools
import json
import shutil
import tracemalloc

import numpy as np
import pytest
import soundfile

from keeptake.audio.fingerprint import BITS, code_words, rotate
from keeptake.beatmaker import plan_demo, write_audio
from keeptake.curation import candidates, duplicates
from keeptake.curation.duplicates import find_duplicates, groups, tells_enough
from keeptake.custody.decode import decode
from keeptake.duplicate_files import duplicates_of_files
from keeptake.errors import ConfigurationError
from keeptake.fingerprinting import fingerprint_file


def take(seed, frames=300):
    """Code words of a synthetic chromagram: fading notes that begin at random."""
    rng = np.random.default_rng(seed)
    onsets = rng.random((frames, 24)) < 0.03
    level = np.zeros((frames, 24), np.float32)
    for t in range(1, frames):
        level[t] = 0.8 * level[t - 1] + onsets[t] * (0.5 + rng.random(24))
    return code_words((1 + level + 0.6 * np.roll(level, 1, axis=1) + 0.05 * rng.random(level.shape)).astype(np.float32))


def flipped(codes, share, seed=0):
    rng = np.random.default_rng(seed)
    noise = (rng.random((len(codes), BITS)) < share).astype(np.uint64) << np.arange(BITS, dtype=np.uint64)
    return codes ^ np.bitwise_or.reduce(noise, axis=1)


def only_pair(fingerprints, **options):
    (pair,) = find_duplicates(fingerprints, **options)
    return pair


def test_a_trimmed_transposed_noisy_copy_comes_with_its_evidence():
    original = take(1)
    pair = only_pair({"a": original, "b": flipped(rotate(original[40:], 2), 0.05), "c": take(2), "d": take(3)})
    assert (pair.a, pair.b, pair.relation) == ("a", "b", "duplicate")
    assert (pair.offset_s, pair.speed, pair.rotation) == (-4.0, 1.0, 1.0)
    assert pair.bit_error == pytest.approx(0.05, abs=0.01)
    assert pair.matched_s == pytest.approx(25.0, abs=0.3)
    assert pair.share == pytest.approx(250 / 290, abs=0.02)
    assert pair.cosine is None


@pytest.mark.parametrize("speed", [0.97, 0.99, 1.02, 1.03])
def test_a_faster_or_slower_copy_is_found_at_its_speed(speed):
    original = take(1)
    pair = only_pair({"a": original, "b": flipped(original[np.arange(0, len(original), speed).astype(int)], 0.04), "c": take(2)})
    assert pair.relation == "duplicate"
    assert pair.speed == pytest.approx(speed, abs=0.005)


@pytest.mark.parametrize(("speed", "steps", "is_copy"), [(1.0, 0, True), (1.005, 0, True), (1.03, 0, False), (1.0, 2, False)])
def test_what_is_turned_or_faster_must_agree_better_to_be_a_copy(speed, steps, is_copy):
    """Different takes with one progression of chords agree at some speed and rotation to 0.135: they were called duplicates."""
    differ = np.full(300, round(0.15 * BITS))
    judged = duplicates._judged(differ, duplicates._Alignment(1.0, speed, 0.0, steps), "a", "b", longer=300)
    assert (judged is not None) == is_copy
    assert duplicates._judged(differ * 2 // 3, duplicates._Alignment(1.0, speed, 0.0, steps), "a", "b", longer=300) is not None


def relation(*parts):
    """Of two takes that differ by so much for so many frames, one part after the other."""
    differ = np.concatenate([np.full(frames, round(error * BITS)) for error, frames in parts])
    return duplicates._judged(differ, duplicates._Alignment(1.0, 1.0, 0.0, 0), "a", "b", longer=len(differ)).relation


def test_what_agrees_here_and_there_has_to_agree_well(monkeypatch):
    """Siblings of one prompt that play one progression of chords were called duplicates, and all but one left out.

    Called excerpts, such pairs chained 35 of 464 takes together, all of which then stood in one split.
    """
    chords = [(0.1, 50), (0.45, 20), (0.1, 80), (0.45, 20), (0.1, 80), (0.45, 20), (0.1, 30)]
    assert relation(*chords) == "alike"
    assert relation((0.12, 80), (0.45, 220)) == "alike"  # 8 s of common chords
    assert relation((0.09, 110), (0.45, 190)) == "excerpt"  # 11 s without a gap, such as of a song played faster
    assert relation((0.03, 40), (0.45, 260)) == "excerpt"  # 4 s of the same recording
    assert relation((0.15, 300)) == "duplicate"  # noisy all over
    assert relation((0.1, 210), (0.45, 90)) == "duplicate"  # noisy, and with another end
    assert relation(*((0.02 if error == 0.1 else error, frames) for error, frames in chords)) == "duplicate"  # parts done again

    monkeypatch.setattr(duplicates, "MIN_UNBROKEN", 0.0)  # control
    assert relation(*chords) == "duplicate"


def test_sound_that_agrees_by_chance_is_dropped_before_it_is_aligned(monkeypatch):
    """What grows with the square of the takes: unrelated pairs that share a key and look alike around it."""
    takes = {f"t{seed}": take(seed) for seed in range(60)}
    copy = flipped(take(1)[np.arange(0, 290, 1.013).astype(int)], 0.06)
    aligned = []
    align = duplicates._align
    monkeypatch.setattr(duplicates, "_align", lambda corpus, a, b, shared: aligned.append((a, b)) or align(corpus, a, b, shared))
    monkeypatch.setattr(candidates, "MAX_LOCAL_ERROR", 0.35)  # lets the unlike pass the first look

    (pair,) = find_duplicates({**takes, "copy": copy})
    assert (pair.a, pair.b, pair.relation) == ("copy", "t1", "duplicate")
    assert len(aligned) == 1

    monkeypatch.setattr(candidates, "MAX_LOCAL_ERROR_AT_SPEED", 0.35)  # control: without the second look
    find_duplicates({**takes, "copy": copy})
    assert len(aligned) > 2


def least_share(original, copy):
    """Least share matched over all shared frames that an alignment may begin with."""
    corpus = candidates.lay_out({"a": original, "b": copy})
    wanted = candidates.Wanted(np.ones(2, bool), among_new=True)
    shared = candidates._agree_locally(corpus, next(candidates._shared_keys(corpus, wanted)))
    one_each = (shared.only(np.arange(len(shared.a)) == at) for at in range(len(shared.a)))
    found = [duplicates._align(corpus, 0, 1, one) for one in one_each]
    return min(pair.share if pair else 0.0 for pair in found)


def test_whichever_shared_frame_comes_first_the_whole_copy_is_laid_over(monkeypatch):
    """Three in a thousand copies were once laid half a frame beside themselves, and half of each was lost."""
    original = take(6)
    copies = [flipped(original[np.arange(20, 280, speed).astype(int)], 0.06) for speed in np.arange(0.984, 1.017, 0.002)]
    assert min(least_share(original, copy) for copy in copies) > 0.8

    monkeypatch.setattr(duplicates, "SHIFTS_FRAMES", (0.0,))
    assert min(least_share(original, copy) for copy in copies) < 0.7


def test_control_unrelated_takes_are_no_pair():
    assert find_duplicates({f"t{seed}": take(seed) for seed in range(60)}) == []


def test_control_without_rotation_the_transposed_copy_is_lost(monkeypatch):
    """Keys that are not brought to their least form are those of a plain fingerprint: a semitone up looks unrelated."""
    takes = {"a": take(1), "b": rotate(take(1), 2)}
    assert len(find_duplicates(takes)) == 1

    def as_it_is(now, later, odd):
        return (later << np.uint64(24)) | now, np.full(len(now), -odd, np.int8)

    monkeypatch.setattr(candidates, "_least_form", as_it_is)
    assert find_duplicates(takes) == []


def test_few_new_takes_find_what_a_look_at_every_key_finds(monkeypatch):
    """Against few new takes only the keys that they have are looked at: for one take the whole corpus was turned and sorted."""
    stored = {f"t{seed}": take(seed) for seed in range(40)}
    new = {
        "up": flipped(rotate(take(3), 5), 0.05),
        "part": take(4)[90:200],
        "short": take(5)[:4],
        "else": take(99),
        "": take(6)[:0],
    }
    options = {"new": list(new), "among_new": False}
    found = find_duplicates({**stored, **new}, **options)
    assert {(pair.a, pair.b) for pair in found} == {("t3", "up"), ("part", "t4")}

    monkeypatch.setattr(candidates, "_words_of_new", lambda *_: None)
    assert find_duplicates({**stored, **new}, **options) == found


@pytest.mark.parametrize("entries", [97, 1 << 22])
def test_the_evidence_is_the_same_however_much_is_looked_at_at_once(monkeypatch, entries):
    """Which shared frame an alignment began with followed the order of keys, and so the size of the corpus."""
    takes = {"a": take(1), "b": flipped(take(1)[np.arange(0, 290, 1.004).astype(int)], 0.08), "c": take(2)}
    expected = find_duplicates(takes)
    monkeypatch.setattr(candidates, "ENTRIES_A_PORTION", entries)
    assert find_duplicates(takes) == expected


def test_a_medley_holds_excerpts_and_joins_no_group():
    """A ten-minute file of one excerpt after another once joined all their takes in one group."""
    takes = {f"t{seed}": take(seed) for seed in range(6)}
    pairs = find_duplicates({**takes, "medley": np.concatenate(list(takes.values())), "t0 again": takes["t0"]})
    excerpts = {pair for pair in pairs if pair.relation == "excerpt"}
    assert {frozenset((pair.a, pair.b)) for pair in excerpts} == {frozenset((name, "medley")) for name in [*takes, "t0 again"]}
    assert [group.members for group in groups(pairs)] == [("t0", "t0 again")]


def test_halves_of_one_recording_without_common_sound_are_no_pair():
    original = take(1)
    assert find_duplicates({"first": original[:140], "second": original[150:]}) == []


def test_takes_that_share_only_a_part_say_how_much():
    shared, a, b = take(1)[:100], take(2), take(3)
    pair = only_pair({"a": np.concatenate([shared, a[:200]]), "b": np.concatenate([shared, b[:200]])})
    assert pair.relation == "excerpt"
    assert pair.share == pytest.approx(1 / 3, abs=0.05)


def test_many_copies_of_one_sound_stay_one_group():
    """A key shared by more takes than `NEXT_IN_ROW` is not compared with all of them: the group must hold together anyway."""
    original = take(1)
    copies = {f"c{i:02}": flipped(original, 0.03, seed=i) for i in range(40)}
    (group,) = groups(find_duplicates({**copies, "other": take(2)}))
    assert group.members == tuple(sorted(copies))


def test_groups_are_connected_components_of_duplicates():
    a, b = take(1), take(2)
    found = groups(find_duplicates({"a": a, "a2": flipped(a, 0.05), "a3": a[30:], "b": b, "b2": flipped(b, 0.05), "c": take(3)}))
    assert [group.members for group in found] == [("a", "a2", "a3"), ("b", "b2")]
    assert all({pair.a, pair.b} <= set(group.members) for group in found for pair in group.pairs)
    assert groups([]) == []


def test_new_takes_are_held_against_the_stored_ones_and_those_are_not_compared_again():
    a, b = take(1), take(2)
    takes = {"a": a, "a2": flipped(a, 0.05), "b": b, "b2": flipped(b, 0.05)}
    assert [(pair.a, pair.b) for pair in find_duplicates(takes, new={"b2"})] == [("b", "b2")]
    assert find_duplicates(takes, new=set()) == []
    assert len(find_duplicates(takes)) == 2


def test_the_embedding_is_the_second_witness():
    original = take(1)
    vectors = {"a": np.array([1.0, 0.0], np.float32), "b": np.array([1.0, 1.0], np.float32)}
    pair = only_pair({"a": original, "b": flipped(original, 0.02)}, vectors=vectors)
    assert pair.cosine == pytest.approx(2**-0.5, abs=1e-4)
    assert only_pair({"a": original, "b": original}, vectors={"a": vectors["a"]}).cosine is None


def test_names_carry_no_meaning_and_order_does_not_matter():
    takes = [take(1), flipped(take(1), 0.05), take(2), flipped(take(2), 0.05)]
    for names in itertools.permutations("wxyz"):
        found = groups(find_duplicates(dict(zip(names, takes, strict=True))))
        assert {group.members for group in found} == {tuple(sorted(names[:2])), tuple(sorted(names[2:]))}


@pytest.mark.parametrize("fingerprints", [{}, {"a": take(1)}, {"a": take(1), "b": np.zeros(0, np.uint64)}])
def test_nothing_to_compare_is_no_pair(fingerprints):
    assert find_duplicates(fingerprints) == []


def test_silent_takes_are_not_copies_of_each_other():
    silent = np.zeros(200, np.uint64)
    assert find_duplicates({"a": silent, "b": silent}) == []
    assert not tells_enough(silent)


def test_takes_that_agree_for_a_moment_and_oppose_each_other_elsewhere_are_no_pair():
    """Every alignment of such a pair is worse than chance; `keeptake duplicates` over a whole folder ended with a ValueError."""
    original = take(1)
    opposed = original ^ np.uint64((1 << BITS) - 1)
    opposed[130:166] = original[130:166]
    assert find_duplicates({"a": original, "b": opposed}) == []


def test_files_of_a_folder_are_grouped_and_the_rest_is_listed(tmp_path, signals):
    beat = signals.drum_beat(100, 12.0, 22_050, chords_hz=((220.0, 277.2, 329.6), (196.0, 246.9, 293.7), (174.6, 220.0, 261.6)))
    (tmp_path / "deep").mkdir()
    soundfile.write(tmp_path / "one.wav", beat, 22_050)
    soundfile.write(tmp_path / "deep" / "zwei.ogg", np.stack([0.5 * beat[11_025:], 0.4 * beat[11_025:]], axis=1), 22_050)
    soundfile.write(tmp_path / "quiet.flac", np.zeros(22_050 * 8, np.float32), 22_050)
    (tmp_path / "page.mp3").write_text("<html>no such song</html>")
    (tmp_path / ".hidden.wav").write_bytes(b"passed over")
    told = []

    found = duplicates_of_files([tmp_path, tmp_path / "one.wav"], progress=lambda stage, done, total: told.append((done, total)))

    json.dumps(found)
    (group,) = found["groups"]
    assert group["files"] == [str(tmp_path / "deep" / "zwei.ogg"), str(tmp_path / "one.wav")]
    assert group["evidence"][0]["offset_s"] == pytest.approx(0.5, abs=0.11)
    reasons = {entry["file"]: entry["reason"] for entry in found["not_compared"]}
    assert reasons == {str(tmp_path / "page.mp3"): "not-audio", str(tmp_path / "quiet.flac"): "tells-too-little"}
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_file_that_goes_away_meanwhile_is_listed_and_ends_nothing(tmp_path, signals):
    beat = signals.drum_beat(100, 12.0, 22_050, chords_hz=((220.0, 277.2, 329.6), (196.0, 246.9, 293.7), (174.6, 220.0, 261.6)))
    for name in ("a.wav", "b.wav", "c.wav"):
        soundfile.write(tmp_path / name, beat, 22_050)
    found = duplicates_of_files([tmp_path], progress=lambda stage, done, total: (tmp_path / "b.wav").unlink(missing_ok=True))
    assert [entry["reason"] for entry in found["not_compared"]] == ["not-found"]
    assert found["groups"][0]["files"] == [str(tmp_path / "a.wav"), str(tmp_path / "c.wav")]


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"no file or folder .*nowhere"):
        duplicates_of_files([tmp_path / "nowhere"])


def test_labelled_copies_are_found_under_random_names_and_siblings_are_not(dev_data, tmp_path):
    """Two takes with all their copies, three siblings of one prompt, two excerpts of one recording."""
    labels = [json.loads(line) for line in (dev_data / "labels.jsonl").read_text().splitlines()]
    wanted = ("rd_00_trap_flat", "ai_happy_acoustic_", "km_wallpaper")
    labels = [label for label in labels if label["file"].removeprefix("audio/").startswith(wanted)]
    rng, source = np.random.default_rng(5), {}
    for label in labels:
        name = tmp_path / f"{rng.integers(1 << 60):015x}{label['file'][label['file'].rindex('.') :]}"
        shutil.copyfile(dev_data / label["file"], name)
        source[str(name)] = label.get("duplicate_of") or label["file"]

    found = duplicates_of_files([tmp_path])

    together = {pair for group in found["groups"] for pair in itertools.combinations(group["files"], 2)}
    copies = {pair for pair in itertools.combinations(sorted(source), 2) if source[pair[0]] == source[pair[1]]}
    assert len(copies) == 63
    assert together == copies
    assert found["not_compared"] == []


def test_rendered_siblings_of_one_prompt_are_no_duplicates(tmp_path, monkeypatch):
    """Six of the 60 takes of the demo were left out as copies of their siblings."""
    siblings = [take for take in plan_demo(60, seed=1) if take.number in (1, 2, 22, 23, 36, 37, 53, 55)]
    codes = {take.file_name: fingerprint_file(write_audio(take, tmp_path)) for take in siblings}
    assert groups(find_duplicates(codes)) == []

    monkeypatch.setattr(duplicates, "MIN_UNBROKEN", 0.0)  # control
    assert len(groups(find_duplicates(codes))) == 4


def test_a_downmix_of_opposite_channels_is_still_heard(signals, tmp_path):
    beat = signals.drum_beat(120, 8.0, 22_050)
    soundfile.write(tmp_path / "opposite.wav", np.stack([beat, -beat], axis=1), 22_050)
    assert tells_enough(fingerprint_file(tmp_path / "opposite.wav"))


def test_a_long_take_of_many_channels_is_never_in_memory_as_a_whole(tmp_path):
    """Half an hour of stereo asked for 1.4 GB at once: more than a worker may take, and the take was then a copy of nothing."""
    path, rate_hz, channels = tmp_path / "wide.wav", 48_000, 8
    noise = np.random.default_rng(3).uniform(-0.5, 0.5, (rate_hz, channels)).astype(np.float32)
    with soundfile.SoundFile(path, "w", rate_hz, channels) as file:
        for _ in range(60):
            file.write(noise)

    def highest_mb(read):
        tracemalloc.start()
        read(path)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest / 2**20

    fingerprint_file(path)  # what is made once and kept
    assert highest_mb(fingerprint_file) < 40
    assert highest_mb(decode) > 80  # control: the samples alone
