"""The beat maker against its own plan: what was asked is what sounds, except where a defect says otherwise."""

import hashlib
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from keeptake.beatmaker import DEFECTS, NOTES, STYLES, Take, make_demo, plan_demo, record_of, render, write_audio
from keeptake.instruments import SAMPLE_RATE_HZ, frequency_hz, voice
from keeptake.records import Accepted, read_record

PLAN = plan_demo(60, seed=1)
KEY_PROFILES = {  # Krumhansl and Kessler (1982)
    "major": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    "minor": (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
}


def sound(take: Take) -> np.ndarray:
    """Mono samples at 22,050 Hz."""
    import librosa

    return librosa.resample(render(take).mean(axis=0), orig_sr=SAMPLE_RATE_HZ, target_sr=22_050)


def one(defect: str | None, **wanted: object) -> Take:
    return next(take for take in PLAN if take.defect == defect and all(getattr(take, name) == wanted[name] for name in wanted))


def digest_of(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_same_seed_writes_the_same_bytes(tmp_path):
    """OGG files drew a random serial number, so that two demos were two sets of audio."""
    make_demo(tmp_path / "a", count=4)
    make_demo(tmp_path / "b", count=4)

    assert digest_of(tmp_path / "a") == digest_of(tmp_path / "b")
    assert len(digest_of(tmp_path / "a")) == 5
    assert {take.format for take in PLAN[:4]} == {"wav", "flac", "mp3"}


def test_another_seed_makes_other_takes():
    ours, theirs = ({take.generation_id for take in plan_demo(20, seed=seed)} for seed in (1, 2))

    assert not ours & theirs


def test_manifest_is_believed_and_names_files_that_decode(tmp_path):
    manifest = make_demo(tmp_path, count=3)
    lines = manifest.read_bytes().splitlines()

    assert len(lines) == 3
    for line, take in zip(lines, plan_demo(3, seed=1), strict=True):
        read = read_record(line)
        assert isinstance(read, Accepted)
        info = soundfile.info(tmp_path / read.generation.audio_url)
        assert info.duration == pytest.approx(take.duration_s, abs=0.06)
        assert read.generation.duration_s == pytest.approx(take.duration_s, abs=0.001)


def test_every_record_of_the_plan_is_believed():
    reads = [read_record(json.dumps(record_of(take)).encode()) for take in PLAN]

    assert all(isinstance(read, Accepted) for read in reads)
    assert len({read.generation.generation_id for read in reads}) == 60
    assert sum(read.feedback is not None for read in reads) > 30


def test_plan_shows_everything_that_a_demo_is_for():
    assert {take.defect for take in PLAN} == {None, *DEFECTS}
    assert {take.genre for take in PLAN} == set(STYLES)
    assert {take.key.split()[1] for take in PLAN} == {"major", "minor"}
    assert 10 < sum(take.has_voice for take in PLAN) < 40
    assert len({take.user for take in PLAN}) >= 5
    assert len({take.prompt for take in PLAN}) < 45  # siblings share a prompt
    assert all(15 < take.duration_s < 30 for take in PLAN)


def test_the_last_take_is_an_earlier_one_again(tmp_path):
    """Something that is a copy, for whoever looks for what the near-duplicates show."""
    *earlier, last = PLAN
    (first,) = [take for take in earlier if take.seed == last.seed]
    assert (first.defect, last.defect) == (None, None)
    assert (first.prompt, last.format) == (last.prompt, "mp3")
    assert first.generation_id != last.generation_id
    np.testing.assert_array_equal(render(first), render(last))
    assert write_audio(first, tmp_path).read_bytes() != write_audio(last, tmp_path).read_bytes()
    assert len({take.seed for take in plan_demo(19, seed=1)}) == 19


def test_nothing_is_no_demo():
    with pytest.raises(ValueError, match="at least one take, got 0"):
        plan_demo(0, seed=1)


@pytest.mark.parametrize("genre", ["techno", "lofi", "synthwave", "drum and bass"])
def test_tempo_and_key_are_as_asked(genre):
    import librosa

    take = one(None, genre=genre)
    samples = sound(take)
    beats_s = librosa.beat.beat_track(y=samples, sr=22_050, hop_length=256, units="time")[1]
    found_bpm = 60 / np.polyfit(np.arange(beats_s.size), beats_s, 1)[0]
    octaves = found_bpm / take.tempo_bpm
    assert min(abs(octaves - 1), abs(octaves - 0.5), abs(octaves - 2)) < 0.01

    power = np.abs(librosa.stft(samples, n_fft=4096, hop_length=2048)) ** 2
    chroma = librosa.feature.chroma_stft(S=power, sr=22_050, n_fft=4096, tuning=0).mean(axis=1)
    fits = {
        f"{NOTES[tonic]} {scale}": np.corrcoef(np.roll(profile, tonic), chroma)[0, 1]
        for scale, profile in KEY_PROFILES.items()
        for tonic in range(12)
    }
    assert max(fits, key=lambda key: fits[key]) == take.key


def test_siblings_differ_in_sound():
    first, second = next((a, b) for a, b in pairwise(PLAN) if a.prompt == b.prompt and not a.defect and not b.defect)

    assert np.abs(render(first) - render(second)).max() > 0.05


def shares(vowel: str) -> dict[str, float]:
    """Shares of a sung note's magnitude around the formants that tell the vowels apart."""
    sung = voice(57, 1.0, vowel, np.random.default_rng(0))
    assert np.abs(sung).max() == pytest.approx(1, abs=1e-6)
    spectrum = np.abs(np.fft.rfft(sung * np.hanning(sung.size)))
    hz = np.fft.rfftfreq(sung.size, 1 / SAMPLE_RATE_HZ)
    lowest = hz[hz < 330][np.argmax(spectrum[hz < 330])]
    assert abs(lowest - frequency_hz(57)) < 12
    bands = {"first": (400, 1000), "second": (1000, 1900), "third": (1900, 3600)}
    return {name: float(spectrum[(hz > low) & (hz < high)].sum() / spectrum.sum()) for name, (low, high) in bands.items()}


def test_voice_sings_its_pitch_with_its_formants():
    a, i, u = (shares(vowel) for vowel in "aiu")

    assert frequency_hz(57) == 220
    assert a["second"] > 2 * max(i["second"], u["second"])
    assert i["third"] > 2 * u["third"]
    assert a["first"] > i["first"]


def test_clean_takes_do_not_clip():
    assert np.abs(render(one(None))).max() == pytest.approx(0.9, abs=1e-4)


def test_defects_are_what_they_are_called(tmp_path):
    clipped = render(one("clipped"))
    assert np.mean(np.abs(clipped) >= 0.999) > 0.05
    assert not render(one("silent")).any()
    left, right = render(one("antiphase"))
    assert np.array_equal(left, -right)
    assert render(one("too-loud-offset")).mean() > 0.15
    off_tempo = one("off-tempo")
    assert off_tempo.tempo_bpm > 1.15 * off_tempo.asked_bpm
    unasked = one("unasked-voice")
    assert unasked.has_voice
    assert "no vocals" in unasked.prompt


def test_broken_files_do_not_decode(tmp_path):
    html = write_audio(one("html"), tmp_path)
    assert html.suffix == ".mp3"
    assert html.read_bytes().startswith(b"<!doctype html>")
    truncated = write_audio(one("truncated"), tmp_path)
    with pytest.raises(soundfile.LibsndfileError), soundfile.SoundFile(truncated) as file:
        while len(file.read(SAMPLE_RATE_HZ)) == SAMPLE_RATE_HZ:
            pass
        raise AssertionError("a cut file decoded to its end")
