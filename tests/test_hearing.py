"""From files to lines, with the real networks and real worker processes."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from keeptake import hearing_files
from keeptake.audio.analyze import PART_VERSIONS
from keeptake.compute import Failed
from keeptake.errors import AudioReason, AudioRefusedError
from keeptake.hearing import analysis_line, draw, hear, hear_file, load_networks
from keeptake.hearing_files import analyze_files
from keeptake.model_store import ModelStore

PROMISED = ("file", "status", "reason", "duration_s", "tempo_bpm", "key", "has_vocals", "vocals_probability", "loudness_lufs")
LIMITS = {"cpu_s": 60.0, "memory_mb": 2048}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def beat(signals, tmp_path):
    path = tmp_path / "beat.flac"
    soundfile.write(path, np.stack([signals.drum_beat(120, 10.0, 44_100)] * 2, axis=1), 44_100)
    return path


def test_a_file_is_heard_by_path_and_by_bytes(beat):
    info, by_path = hear(beat)
    _, by_bytes = hear(beat.read_bytes())
    assert (info.sample_rate_hz, info.channels, info.format, info.duration_s) == (44_100, 2, "flac", 10.0)
    assert info.cpu_s > 0
    assert {name: part.values for name, part in by_path.items()} == {name: part.values for name, part in by_bytes.items()}


def test_networks_find_the_voice_in_an_instrumental_and_in_speech(beat, models, dev_data):
    networks = load_networks(ModelStore(models))
    assert load_networks(ModelStore(models)) is networks
    instrumental = hear_file(beat, networks=networks)
    sung = hear_file(dev_data / "audio" / "voc_vocadito_1.m4a", networks=networks)
    assert instrumental.parts["vocals"].values["has_vocals"] is False
    assert sung.parts["vocals"].values["has_vocals"] is True
    assert sung.parts["vocals"].values["vocal_share"] > 0.5
    assert sung.parts["style"].status == "ok"


def test_level_changes_neither_voice_nor_style(signals, tmp_path, models, monkeypatch):
    """At -6 dB a quarter of the genres were others, at -20 dB instrumental takes had a voice.

    The control takes the levelling away.
    """
    networks = load_networks(ModelStore(models))
    song = signals.song(100, "CB", 2, 44_100)

    def tags(level_db):
        path = tmp_path / f"{level_db}.flac"
        soundfile.write(path, song * 10 ** (level_db / 20), 44_100, subtype="PCM_24")
        parts = hear(path, parts=("vocals", "style"), networks=networks)[1]
        return np.array([parts["vocals"].values["vocals_probability"], *parts["style"].values["tags"].values()])

    np.testing.assert_allclose(tags(-30), tags(0), atol=0.005)
    monkeypatch.setattr("keeptake.audio.frontend.level_for_networks", lambda mono, _: mono)
    assert np.abs(tags(-30) - tags(0)).max() > 0.1


def test_a_line_holds_what_programs_were_promised(beat):
    line = analysis_line(hear_file(beat, file="audio/beat.flac"))
    assert tuple(line)[: len(PROMISED)] == PROMISED
    assert line["file"] == "audio/beat.flac"
    assert (line["status"], line["reason"]) == ("ok", None)
    assert line["tempo_bpm"] == line["bpm"] == pytest.approx(120, rel=1e-3)
    assert len(line["beats_s"]) == pytest.approx(20, abs=2)
    assert isinstance(line["sections"], list)
    assert isinstance(line["flags"], list)
    assert line["null_parts"] == {"vocals": "no-networks", "style": "no-networks"}
    assert line["versions"] == PART_VERSIONS
    assert line["parts_cpu_s"].keys() == PART_VERSIONS.keys() and 0 < sum(line["parts_cpu_s"].values()) <= line["cpu_s"]
    assert json.loads(json.dumps(line, allow_nan=False)) == line


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", AudioReason.EMPTY), (b"<html>not found</html>", AudioReason.NOT_AUDIO), (None, AudioReason.NOT_FOUND)],
)
def test_a_file_that_does_not_decode_is_a_line(tmp_path, content, reason):
    path = tmp_path / "take.mp3"
    if content is not None:
        path.write_bytes(content)
    line = analysis_line(hear_file(path))
    assert (line["status"], line["reason"]) == ("quarantined", reason.value)
    assert line["detail"]
    assert line["tempo_bpm"] is line["duration_s"] is None


def test_a_truncated_file_is_quarantined(beat):
    beat.write_bytes(beat.read_bytes()[: beat.stat().st_size // 2])
    assert analysis_line(hear_file(beat))["status"] == "quarantined"


@pytest.mark.parametrize("duration_s", [1, 30])
def test_samples_that_are_no_numbers_are_quarantined(tmp_path, duration_s):
    """Of a longer file the first block alone was read, and the refusal was that 30 s were promised and 4 s decoded."""
    path = tmp_path / "nan.wav"
    samples = np.zeros(duration_s * 44_100, np.float32)
    samples[1_000] = np.nan
    soundfile.write(path, samples, 44_100, subtype="FLOAT")
    line = analysis_line(hear_file(path))
    assert (line["status"], line["reason"]) == ("quarantined", "non-finite-samples")


def test_only_the_stale_part_is_heard_again(beat):
    _, parts = hear(beat, parts=["loudness"])
    assert set(parts) == {"loudness"}
    assert parts["loudness"].version == PART_VERSIONS["loudness"]


def test_files_are_heard_by_workers_in_order_with_a_picture_each(beat, tmp_path, models):
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF of nothing")
    silent = tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(44_100), 44_100)
    files = [silent, broken, beat, tmp_path / "missing.mp3"]
    lines = list(analyze_files(files, models=models, workers=2, plot_dir=tmp_path / "plots", **LIMITS))
    assert [line["file"] for line in lines] == [str(file) for file in files]
    assert [line["status"] for line in lines] == ["ok", "quarantined", "ok", "quarantined"]
    assert lines[2]["has_vocals"] is False
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == ["beat.flac.png", "silent.wav.png"]


def test_pictures_of_files_with_one_name_carry_their_folders():
    names = Counter({"a.wav": 2, "b.wav": 1})
    assert hearing_files._picture_name(Path("/x/y/a.wav"), names) == "x_y_a.wav.png"
    assert hearing_files._picture_name(Path("/x/y/b.wav"), names) == "b.wav.png"


def test_without_models_vocals_are_null(beat):
    (line,) = analyze_files([beat], models=None, **LIMITS)
    assert line["null_parts"]["vocals"] == "no-networks"


def test_no_files_no_lines():
    assert list(analyze_files([], models=None, **LIMITS)) == []


def test_a_picture_needs_samples(beat, tmp_path):
    _, parts = hear(beat)
    assert draw(beat, parts, title="beat").startswith(b"\x89PNG")
    with pytest.raises(AudioRefusedError):
        draw(b"no audio", parts, title="beat")


def test_a_mistake_of_ours_costs_its_file_alone():
    """One file that met a bug ended the command, without a line of all others."""
    asked = hearing_files.FileAsked(0, Path("a.wav"), None)
    line = hearing_files._lost(asked, Failed("raised", "Traceback … ValueError: of size 0", ValueError("of size 0")))
    assert (line["file"], line["status"], line["reason"]) == ("a.wav", "quarantined", "crashed-worker")
    assert "of size 0" in line["detail"]
    with pytest.raises(OSError, match="No space left"):
        hearing_files._lost(asked, Failed("raised", "", OSError(28, "No space left on device")))
