"""The gate catches what trainers' readers trip over: a good version passes, each mutation of it is caught."""

import io
import json
import runpy
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlcroissant
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pyloudnorm
import pytest
import soundfile

from keeptake.curation import versions
from keeptake.curation.building import FORMAT_VERSIONS, Stage, finish, write_audio, write_csv, write_jsonl, write_parquet
from keeptake.curation.policy import read_policy
from keeptake.curation.versions import plan_rows
from keeptake.errors import ConfigurationError
from keeptake.formats import ace_step, hf_parquet, hugging_face, webdataset
from keeptake.formats.clips import MAX_PEAK, ClipWanted, write_clips
from keeptake.formats.gate import inspect
from keeptake.formats.manifest import problems
from keeptake.formats.relocate import main, relocate

RATE_HZ = 44_100
EVERY_FORMAT = {"has_ace_step": True, "has_stable_audio": True}


def tone(number: int, duration_s: float) -> bytes:
    times_s = np.arange(round(duration_s * RATE_HZ)) / RATE_HZ
    left = 0.3 * np.sin(2 * np.pi * (200 + 30 * number) * times_s)
    encoded = io.BytesIO()
    soundfile.write(encoded, np.stack([left, 0.5 * left], axis=1), RATE_HZ, format="WAV")
    return encoded.getvalue()


def takes(splits: list[str]) -> pl.DataFrame:
    """Takes as the ledger gives them; the first is long enough to be cut, the third is known by its prompt alone."""
    rows = []
    for number, split in enumerate(splits):
        known = number != 2
        rows.append(
            {
                "generation": number,
                "generation_id": f"gen.{number}",
                "file_id": f"{number:016x}",
                "split": split,
                "group_id": f"{number:016x}",
                "user_id": f"user{number}",
                "user_prompt": f"beat {number}",
                "ai_enhanced_prompt": f"a fine beat, number {number}" if number % 2 else None,
                "generation_params": json.dumps({"genre": "trap", "bpm": 140}),
                "audio_url": f"https://cdn.example/{number}.wav?signature=secret",
                "provider": "suno",
                "model_used": None,
                "created_at": datetime(2026, 1, 1, tzinfo=UTC),
                "liked": True if known else None,
                "rating": 5 if known else None,
                "used": None,
                "seed_score": 0.8,
                "quality_score": 0.8,
                "adherence": None,
                "audio_sha256": f"{number:064x}",
                "sample_rate_hz": RATE_HZ,
                "channels": 2,
                "duration_s": 65.0 if number == 0 else 2.0,
                "claimed_duration_s": 30.0,
                "tempo_bpm": 120.0 if known else None,
                "tempo_confidence": 0.9,
                "beats_per_bar": 4,
                "key": "A minor" if known else None,
                "key_confidence": 0.9,
                "loudness_lufs": -14.0,
                "has_vocals": False if known else None,
                "vocals_probability": 0.1 if known else None,
                "heard_genre": None,
                "mood": None,
                "genre": "trap" if known else None,
                "features_versions": "rhythm=1",
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None)


def nothing_heard(files: Sequence[str]) -> dict[str, Any]:
    """What was heard over time in files of which nothing is known."""
    return {}


def build(folder: Path, splits: list[str], *, location: Path | None = None, **sections: object) -> Stage:
    """Write a whole version into a folder, without a ledger."""
    policy = read_policy({"name": "gate", "formats": EVERY_FORMAT} | sections, origin="test")
    rows = plan_rows(takes(splits), nothing_heard, policy, pseudonym_key="key").rows
    lineage = {
        "name": "gate",
        "version": "v1-0123456789ab",
        "location": str(location or folder),
        "policy": policy.model_dump(mode="json"),
        "formats": FORMAT_VERSIONS,
        "features_versions": ["rhythm=1"],
        "counts": {"candidates": len(splits) + 3, "kept": len(splits)},
        "left_out": {"low-score": 3},
        "scrubbed": {"email": 1},
        "score_histogram": [0] * 19 + [5],
        "made_with": {},
    }
    stage = Stage("gate", "v1-0123456789ab", folder, location or folder, is_new=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_audio(stage, rows, lineage, lambda sha256: tone(int(sha256, 16), 65.0 if not int(sha256, 16) else 2.0))
    write_jsonl(stage)
    write_parquet(stage)
    write_csv(stage)
    finish(stage)
    return stage


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """A version with every format, all splits, a take cut in three, a take of which little is known."""
    folder = tmp_path_factory.mktemp("good") / "v1-0123456789ab"
    build(folder, ["train", "train", "test", "valid", "train", "test"])
    return folder


@pytest.fixture
def version(good, tmp_path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(good, tmp_path / "copy"))


def test_good_version_passes_every_reader(good):
    report = inspect(good)
    assert report.problems() == []
    assert report.is_passed
    asked = {reading.reader for reading in report.readings}
    assert asked == {
        *("clips", "audiocraft", "musicgen-dreamboothing", "parquet", "webdataset-rules", "stable-audio-tools", "ace-step"),
        *("load_dataset(FOLDER)", "audiofolder", "webdataset(datasets)", "webdataset"),
    }
    assert {reading.split: reading.rows_out for reading in report.readings} == {"train": 5, "valid": 1, "test": 2}
    assert "datasets 5.2.0" in {reading.source for reading in report.readings}


# rdflib warns of its own class when mlcroissant 1.1 calls it.
croissant_reader = pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated:DeprecationWarning")


@croissant_reader
def test_croissant_validates_and_its_reader_finds_every_row(good):
    described = mlcroissant.Dataset(jsonld=str(good / "croissant.json"))
    assert not described.metadata.ctx.issues.errors
    rows = {split: list(described.records(split)) for split in ("train", "valid", "test")}
    assert {split: len(found) for split, found in rows.items()} == {"train": 5, "valid": 1, "test": 2}
    names = {row["train/file_name"].decode() for row in rows["train"]}
    assert names == {path.name for path in (good / "train").glob("*.flac")}


@croissant_reader
def test_control_croissant_notices_a_field_of_no_file(version):
    path = version / "croissant.json"
    described = json.loads(path.read_text())
    described["recordSet"][0]["field"][0]["source"]["fileObject"] = {"@id": "nowhere"}
    path.write_text(json.dumps(described))
    with pytest.raises(mlcroissant.ValidationError, match="nowhere"):
        mlcroissant.Dataset(jsonld=str(path))


@pytest.mark.parametrize("splits", [["train"], ["train", "train", "train", "valid"], ["test"], ["valid", "train"]])
def test_versions_with_empty_splits_load_everywhere(tmp_path, splits):
    build(tmp_path / "small", splits)
    assert inspect(tmp_path / "small", packages=splits == ["train"]).problems() == []


def test_shards_are_cut_by_size_and_still_read_whole(tmp_path, monkeypatch):
    for module in (hf_parquet, webdataset):
        monkeypatch.setattr(module, "SHARD_BYTES", 60_000)
    build(tmp_path / "shards", ["train"] * 4)
    names = sorted(path.name for path in (tmp_path / "shards" / "parquet").iterdir())
    assert len(names) > 2 and names[-1] == f"train-{len(names) - 1:05d}-of-{len(names):05d}.parquet"
    assert len(list((tmp_path / "shards" / "wds").iterdir())) > 1
    assert inspect(tmp_path / "shards", packages=False).problems() == []


def test_masters_and_loudness_are_what_the_policy_asks(tmp_path):
    audio = {"has_master": True, "loudness_lufs": -20.0, "sample_rate_hz": 24_000}
    build(tmp_path / "asked", ["train", "train"], audio=audio)
    assert inspect(tmp_path / "asked", packages=False).problems() == []
    name = "0000000000000001.flac"
    clip, clip_rate_hz = soundfile.read(tmp_path / "asked" / "train" / name)
    master, master_rate_hz = soundfile.read(tmp_path / "asked" / "masters" / "train" / name)
    assert (clip.ndim, clip_rate_hz, master.shape[1], master_rate_hz) == (1, 24_000, 2, RATE_HZ)
    # The take's own loudness is that of two channels, whose mean is another sound: clips missed their loudness by 3.6 LU.
    assert pyloudnorm.Meter(clip_rate_hz).integrated_loudness(clip) == pytest.approx(-20.0, abs=0.1)
    assert np.abs(master).max() / np.abs(clip).max() == pytest.approx(0.3 / 0.225, rel=0.02)  # one gain for both


def test_trainers_at_full_rate_are_sent_to_the_masters(tmp_path):
    """ACE-Step and stable-audio-tools, which train in stereo at 44.1 kHz and more, were given mono at 32 kHz."""
    build(tmp_path / "songs", ["train", "train", "test"], audio={"has_master": True})
    assert inspect(tmp_path / "songs", packages=False).problems() == []
    for split in ("train", "test"):
        samples = json.loads((tmp_path / "songs" / "ace_step" / f"{split}.json").read_text())["samples"]
        found = {
            (soundfile.info(sample["audio_path"]).samplerate, soundfile.info(sample["audio_path"]).channels) for sample in samples
        }
        assert found == {(RATE_HZ, 2)}
    (train,) = json.loads((tmp_path / "songs" / "stable_audio.json").read_text())["datasets"]
    module = runpy.run_path(train["custom_metadata_module"])
    masters = sorted(Path(train["path"]).glob("*.flac"))
    assert [soundfile.info(path).channels for path in masters] == [2] * 4
    prompts = {module["get_custom_metadata"]({"path": str(path)}, None)["prompt"] for path in masters}
    assert prompts == {"beat 0", "a fine beat, number 1"}


def test_loudness_of_a_row_is_that_of_its_file(tmp_path):
    """Rows told the loudness of the whole take before any gain: -9.7 of a file that measures -16.0."""
    build(tmp_path / "asked", ["train", "test"], audio={"loudness_lufs": -16.0})
    rows = pl.read_parquet(tmp_path / "asked" / "lineage" / "rows.parquet")
    assert rows.height == 4 and rows["take_loudness_lufs"].unique().to_list() == [-14.0]
    for row in rows.iter_rows(named=True):
        samples, rate_hz = soundfile.read(tmp_path / "asked" / row["split"] / f"{row['id']}.flac")
        assert row["loudness_lufs"] == pytest.approx(pyloudnorm.Meter(rate_hz).integrated_loudness(samples), abs=0.1)
    shards = pl.concat(pl.read_parquet(path) for path in (tmp_path / "asked" / "parquet").iterdir())
    told = dict(shards.select("id", "loudness_lufs").iter_rows())
    assert told == dict(rows.select("id", "loudness_lufs").iter_rows())
    heard = lines(tmp_path / "asked" / "seed" / "export.jsonl")[0]["metadata"]["heard"]
    assert heard["loudness_lufs"] == -14  # of the take, whose line it is


def test_a_clip_too_short_for_a_loudness_has_none(tmp_path):
    encoded = io.BytesIO()
    soundfile.write(encoded, np.full((RATE_HZ // 4, 1), 0.25), RATE_HZ, format="WAV")
    (written,) = write_clips(encoded.getvalue(), [ClipWanted("x", tmp_path / "x.flac", 0.0, 0.25, -16.0, None)], 32_000)
    assert (written.frames, written.loudness_lufs) == (8_000, None)


def lines(path: Path) -> list[dict]:
    return [json.loads(text) for text in path.read_text().splitlines()]


def rewrite(path: Path, found: list[dict]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in found))


def in_lines(name: str, split: str = "train", **changes: object) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        found = lines(folder / split / name)
        found[0] |= changes
        rewrite(folder / split / name, [{key: value for key, value in line.items() if value != "drop"} for line in found])

    return spoil


def in_sidecar(**changes: object) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = next(iter(sorted((folder / "train").glob("*.json"))))
        tags = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({key: value for key, value in tags.items() if value != "drop"}))

    return spoil


def blank_last_line(folder: Path) -> None:
    with (folder / "train" / "data.jsonl").open("a") as file:
        file.write("\n")


def without_sidecar(folder: Path) -> None:
    next(iter(sorted((folder / "train").glob("*.json")))).unlink()


def root_metadata(folder: Path) -> None:
    shutil.copy(folder / "train" / "metadata.jsonl", folder / "metadata.jsonl")


def metadata_of_two_kinds(folder: Path) -> None:
    (folder / "train" / "metadata.csv").write_text("file_name,text\n")


def clip_without_metadata(folder: Path) -> None:
    found = lines(folder / "train" / "metadata.jsonl")
    rewrite(folder / "train" / "metadata.jsonl", found[1:])


def first_clip(folder: Path) -> Path:
    return next(iter(sorted((folder / "train").glob("*.flac"))))


def clip_as(samples: Callable[[np.ndarray], np.ndarray], rate_hz: int = 32_000) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        heard, _ = soundfile.read(first_clip(folder))
        soundfile.write(first_clip(folder), samples(heard), rate_hz, format="FLAC")

    return spoil


def truncated_clip(folder: Path) -> None:
    whole = first_clip(folder).read_bytes()
    first_clip(folder).write_bytes(whole[: len(whole) // 2])


def clip_of_text(folder: Path) -> None:
    first_clip(folder).write_bytes(b"<html>403 Forbidden</html>")


def missing_clip(folder: Path) -> None:
    first_clip(folder).unlink()


def dotted_ids(folder: Path) -> None:
    rows = pl.read_parquet(folder / "lineage" / "rows.parquet")
    rows.with_columns(id=pl.col("id").str.replace("-", ".v2.")).write_parquet(folder / "lineage" / "rows.parquet")


def shard(folder: Path) -> Path:
    return folder / "parquet" / "train-00000-of-00001.parquet"


def large_binary(folder: Path) -> None:
    table = pq.read_table(shard(folder))
    kind = pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())])
    at = table.schema.get_field_index("audio")
    pq.write_table(table.set_column(at, pa.field("audio", kind), table["audio"].cast(kind)), shard(folder))


def footer_without_note(folder: Path) -> None:
    pq.write_table(pq.read_table(shard(folder)).replace_schema_metadata(None), shard(folder))


def footer_with_a_column_less(folder: Path) -> None:
    table = pq.read_table(shard(folder))
    note = json.loads(table.schema.metadata[b"huggingface"])
    del note["info"]["features"]["text"]
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(note)}), shard(folder))


def paths_without_bytes(folder: Path) -> None:
    table = pq.read_table(shard(folder))
    audio = [{"bytes": None, "path": "/home/me/x.flac"} for _ in range(table.num_rows)]
    at = table.schema.get_field_index("audio")
    pq.write_table(table.set_column(at, table.field("audio"), pa.array(audio, table.field("audio").type)), shard(folder))


def shard_with_fewer_rows(folder: Path) -> None:
    pq.write_table(pq.read_table(shard(folder)).slice(1), shard(folder))


def misnamed_shard(folder: Path) -> None:
    shard(folder).rename(shard(folder).with_name("train-00001-of-00002.parquet"))


def repack(change: Callable[[list[tuple[str, bytes]]], list[tuple[str, bytes]]]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "wds" / "train-000000.tar"
        with tarfile.open(path) as tar:
            members = [(member.name, tar.extractfile(member).read()) for member in tar]
        with tarfile.open(path, "w") as tar:
            for name, content in change(members):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))

    return spoil


def with_json(content: bytes, change: Callable[[dict], dict]) -> bytes:
    return json.dumps(change(json.loads(content))).encode()


MUTATIONS: dict[str, tuple[Callable[[Path], None], str]] = {
    "sidecar without a key": (in_sidecar(moods="drop"), "Unexpected missing key: moods"),
    "sidecar with a NaN tempo": (in_sidecar(bpm=float("nan")), "bpm nan is no number"),
    "sidecar with a list of tempi": (in_sidecar(bpm=[120, 140]), "bpm [120, 140] is no number"),
    "sidecar with a key and a comma": (in_sidecar(key="A minor, C major"), "has a comma and becomes none"),
    "sidecar with moods as text": (in_sidecar(moods="lo-fi, hip hop"), "split at every space"),
    "sidecar with a list of genres": (in_sidecar(genre=["trap"]), "genre is no text"),
    "sidecar without a description": (in_sidecar(description=""), "without its text"),
    "no sidecar": (without_sidecar, "would train without its text"),
    "blank last line": (blank_last_line, "audiocraft, train: Expecting value"),
    "manifest without a path": (in_lines("data.jsonl", path="drop"), "path is None"),
    "manifest without a rate": (in_lines("data.jsonl", sample_rate="drop"), "sample_rate is None"),
    "manifest with a relative path": (in_lines("data.jsonl", path="train/x.flac"), "is not absolute"),
    "manifest with a claimed duration": (in_lines("data.jsonl", duration=60.0), "the manifest says 60.0"),
    "manifest with a weight of 0": (in_lines("data.jsonl", weight=0.0), "stops the sampler"),
    "metadata beside the splits": (root_metadata, "loses every caption"),
    "metadata of two kinds": (metadata_of_two_kinds, "takes one only"),
    "metadata with a null": (in_lines("metadata.jsonl", bpm=None), "columns must agree"),
    "metadata with a number as text": (in_lines("metadata.jsonl", bpm="120"), "columns must agree"),
    "metadata with a NaN": (in_lines("metadata.jsonl", bpm=float("nan")), "NaN is no JSON number"),
    "metadata with an absolute name": (in_lines("metadata.jsonl", file_name="/srv/x.flac"), "absolute or leads out"),
    "metadata that leads out": (in_lines("metadata.jsonl", file_name="../test/x.flac"), "absolute or leads out"),
    "metadata without a column": (in_lines("metadata.jsonl", text="drop"), "text is None"),
    "clip without metadata": (clip_without_metadata, "skipped in silence"),
    "clip of 30.0 s": (clip_as(lambda heard: np.resize(heard, 30 * 32_000)), "strictly shorter than 30 s"),
    "clip in stereo": (clip_as(lambda heard: np.stack([heard, heard], axis=1)), "mono is expected"),
    "clip at another rate": (clip_as(lambda heard: heard, 44_100), "44100 Hz, the policy says 32000"),
    "silent clip": (clip_as(lambda heard: heard * 1e-4), "quieter than -60 dB"),
    "truncated clip": (truncated_clip, "clips, train"),
    "clip that is a web page": (clip_of_text, "clips, train"),
    "missing clip": (missing_clip, "clips, train"),
    "dots in ids": (dotted_ids, "readers cut names at dots"),
    "large_binary audio": (large_binary, "never recognised as Audio"),
    "footer without a note": (footer_without_note, "loads as a plain struct"),
    "footer with a column less": (footer_with_a_column_less, "loads as a plain struct"),
    "paths without bytes": (paths_without_bytes, "only a path of the writing machine"),
    "shard with fewer rows": (shard_with_fewer_rows, "4 rows of 5 are there"),
    "misnamed shard": (misnamed_shard, "is not shard 0 of 1"),
    "no shard": (lambda folder: shard(folder).unlink(), "no shard is there"),
    "sample without json": (repack(lambda members: members[:-1]), "expected flac and json"),
    "members apart": (repack(lambda members: [*members[::2], *members[1::2]]), "do not lie side by side"),
    "keys with dots": (repack(lambda ms: [(f"gen.v2.{n}", content) for n, content in ms]), "expected flac and json"),
    "sample with a null": (
        repack(lambda ms: [(n, with_json(c, lambda j: j | {"bpm": None}) if n == ms[3][0] else c) for n, c in ms]),
        "differ from the first sample's",
    ),
    "tar without text": (
        repack(lambda ms: [(n, with_json(c, lambda j: j | {"text": []}) if n.endswith("json") else c) for n, c in ms]),
        "the sample is dropped",
    ),
    "dropping the last batch": (
        lambda folder: (folder / "stable_audio.json").write_text('{"dataset_type": "audio_dir"}'),
        "small sets give none",
    ),
    "paths of another place": (
        lambda folder: (folder / "stable_audio.json").write_text(
            (folder / "stable_audio.json").read_text().replace("/train", "/masters/train")
        ),
        "as its only folder",
    ),
    "songs of another place": (
        lambda folder: (folder / "ace_step" / "train.json").write_text(
            (folder / "ace_step" / "train.json").read_text().replace("/train/", "/elsewhere/train/")
        ),
        "audio, caption or lyrics missing",
    ),
    "a song without lyrics": (
        lambda folder: (folder / "ace_step" / "train.json").write_text('{"samples": []}'),
        "0 rows of 5 are read",
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_each_mutation_is_caught_by_name(version, good, name):
    spoil, said = MUTATIONS[name]
    spoil(version)
    report = inspect(version, location=good, packages=False)
    assert not report.is_passed
    assert any(said in problem for problem in report.problems()), report.problems()


def test_each_mutation_is_also_seen_by_the_manifest(version):
    assert problems(version) == []
    in_sidecar(bpm=float("nan"))(version)
    missing_clip(version)
    root_metadata(version)
    assert [problem.partition(" ")[2] for problem in problems(version)] == ["does not belong here", "is missing", "was changed"]


def test_real_packages_refuse_what_the_rules_say_they_refuse(version):
    """One mutation a reader: types that differ between splits, large_binary audio, a sample without its json."""
    in_lines("metadata.jsonl", "test", key=7)(version)
    large_binary(version)
    repack(lambda members: members[:-1])(version)
    readings = hugging_face.read_back(version, {"train": 5, "valid": 1, "test": 2})
    refused = {reading.reader for reading in readings if not reading.is_whole}
    assert refused == {"load_dataset(FOLDER)", "audiofolder", "parquet", "webdataset", "webdataset(datasets)"}


def test_real_packages_need_the_cards_front_matter_and_metadata_inside_the_splits(version):
    """A `metadata.jsonl` at the root once looked fine: every clip loads, and none has a text."""
    (version / "README.md").unlink()
    shutil.move(version / "train" / "metadata.jsonl", version / "metadata.jsonl")
    refused = {reading.reader for reading in hugging_face.read_back(version, {"train": 5}) if not reading.is_whole}
    assert refused == {"load_dataset(FOLDER)", "audiofolder"}


def test_moved_version_gets_manifests_of_its_new_place(good, tmp_path):
    moved = Path(shutil.copytree(good, tmp_path / "moved"))
    written = relocate(moved, tmp_path / "egs")
    assert [str(path.relative_to(tmp_path / "egs")) for path in written] == [
        *(f"{split}/data.jsonl" for split in ("train", "valid", "test")),
        *(f"ace_step/{split}.json" for split in ("train", "valid", "test")),
        "stable_audio.json",
    ]
    assert all(Path(line["path"]).is_file() and line["path"].startswith(str(moved)) for line in lines(written[0]))
    assert problems(moved) == []


def test_a_copy_reads_as_well_as_the_version_with_its_new_files(tmp_path):
    """ACE-Step and stable-audio-tools still looked where the version was published; their files were never written anew."""
    build(tmp_path / "here", ["train", "test"], audio={"has_master": True})
    moved = Path(shutil.move(tmp_path / "here", tmp_path / "moved"))
    assert not inspect(moved, packages=False).is_passed
    relocate(moved, tmp_path / "out")
    shutil.copytree(tmp_path / "out", moved, dirs_exist_ok=True)
    assert inspect(moved, packages=False).problems() == []
    (train,) = json.loads((moved / "stable_audio.json").read_text())["datasets"]
    assert Path(train["custom_metadata_module"]).is_file() and train["path"] == str(moved / "masters" / "train")


@pytest.mark.parametrize("out", [".", "train", "elsewhere/../egs", "../other/egs"])
def test_manifests_are_not_written_into_a_version(version, good, out):
    """OUT equal to PATH wrote the version's own manifests anew, and its hashes were no longer those of its manifest."""
    shutil.copytree(good, version.parent / "other")
    with pytest.raises(ConfigurationError, match="never changes: name a folder outside of it"):
        relocate(version, version / out)
    assert problems(version) == []


def test_what_is_no_version_is_not_moved(tmp_path):
    with pytest.raises(ConfigurationError, match="is no published version"):
        relocate(tmp_path / "nowhere", tmp_path / "egs")


@pytest.mark.parametrize("module", ["relocate", "audiocraft"])
def test_the_command_that_moves_says_how_it_is_used(module):
    """It ended with an IndexError; audiocraft is the module that the cards of earlier versions name."""
    command = [sys.executable, "-m", f"keeptake.formats.{module}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: python -m keeptake.formats.relocate PATH OUT")


def test_the_command_that_moves_names_what_it_wrote_or_why_not(version, tmp_path, capsys):
    assert main([str(version), str(tmp_path / "egs")]) == 0
    assert str(tmp_path / "egs" / "stable_audio.json") in capsys.readouterr().out.splitlines()
    assert main([str(version), str(version)]) == 1
    assert "never changes" in capsys.readouterr().err


def test_published_files_hold_no_user_signature_or_machine(good):
    texts = b"".join(path.read_bytes() for path in sorted(good.rglob("*.json*")) if path.is_file())
    assert b"user0" not in texts and b"signature=secret" not in texts
    assert pl.read_parquet(good / "lineage" / "rows.parquet")["user"].n_unique() == 6


def test_card_shows_its_pictures_and_says_what_was_left_out(good):
    card = (good / "README.md").read_text()
    shown = [text.partition(")")[0] for text in card.split("](")[1:] if text.startswith("figures/")]
    assert len(shown) >= 7 and all((good / path).read_bytes().startswith(b"\x89PNG") for path in shown)
    assert "| low-score | 3 |" in card and "6 takes" in card and "Not yet ready" in card


def test_card_describes_every_column_where_it_stands(good):
    """The card named `bpm` and `vocals` of Parquet shards that call them otherwise, and nine columns had no word at all."""
    table = (good / "README.md").read_text().partition("## Columns")[2].partition("\n\n")[2].split("\n\n")[0]
    cells = [[cell.strip() for cell in row.strip("| ").split(" | ")] for row in table.splitlines()[2:]]
    cells = [row if len(row) == 3 else ["", *row] for row in cells]
    assert [name for name, _, _ in cells if name] == list(lines(good / "train" / "metadata.jsonl")[0])
    assert {name for _, name, _ in cells if name} == set(pq.read_schema(shard(good)).names)


def test_licences_do_not_break_their_table(tmp_path):
    """A licence with a line break or a bar in it ended its row early."""
    licence = "CC BY 4.0 | paid plan\nsince 2025, \\o/"
    build(tmp_path / "licensed", ["train"], licences={"by_provider": {"suno": licence}})
    assert (
        r"| suno | CC BY 4.0 \| paid plan since 2025, \\o/ | 1 |"
        in (tmp_path / "licensed" / "README.md").read_text().splitlines()
    )


def test_every_way_in_names_the_generation(good):
    of_lines = lines(good / "train" / "metadata.jsonl")
    with tarfile.open(good / "wds" / "train-000000.tar") as tar:
        described = [json.load(tar.extractfile(member)) for member in tar if member.name.endswith(".json")]
    rows = pl.read_parquet(shard(good))
    for found in ([line["generation_id"] for line in of_lines], [each["original_data"]["generation_id"] for each in described]):
        assert found == rows["generation_id"].to_list()
    assert set(rows["generation_id"]) == {"gen.0", "gen.1", "gen.4"}


def test_a_meter_that_was_not_heard_is_not_told(good):
    """ACE-Step was told four beats a bar of takes whose meter nobody had heard; its own labelling leaves the field empty."""
    row = pl.read_parquet(good / "lineage" / "rows.parquet").row(0, named=True)
    told = [ace_step.sample(row | {"beats_per_bar": beats}, good)["timesignature"] for beats in (3, None)]
    assert told == ["3", ""]


def test_original_exports_have_a_line_a_take(good):
    found = lines(good / "seed" / "export.jsonl")
    assert len(found) == 6 and list(found[0]) == ["prompt", "audio_url", "duration", "metadata", "quality_score"]
    assert found[0]["duration"] == 30 and '"duration": 30,' in (good / "seed" / "export.jsonl").read_text()
    header, first, *_ = (good / "seed" / "export.csv").read_text().splitlines()
    assert header == "generationId,userPrompt,aiEnhancedPrompt,audioUrl,duration,genre,bpm,rating,used"
    assert first == "gen.0,beat 0,,https://cdn.example/0.wav,30,trap,140,5,"
    assert pl.read_parquet(good / "seed" / "export.parquet").height == 6


@pytest.mark.parametrize("channels", [1, 2])
def test_peaks_stay_below_full_scale_and_nothing_else_changes(tmp_path, channels):
    rng = np.random.default_rng(0)
    loud = np.clip(rng.normal(0, 0.8, (44_100, channels)), -1, 1).astype(np.float32)
    quiet = loud * np.float32(0.25)
    for name, samples in (("loud", loud), ("quiet", quiet)):
        encoded = io.BytesIO()
        soundfile.write(encoded, samples, 44_100, format="WAV", subtype="FLOAT")
        write_clips(encoded.getvalue(), [ClipWanted(name, tmp_path / f"{name}.flac", 0.0, 1.0, None, None)], 32_000)
    written = {name: soundfile.read(tmp_path / f"{name}.flac")[0] for name in ("loud", "quiet")}
    assert np.abs(written["loud"]).max() <= MAX_PEAK + 2**-15
    ratio = np.linalg.norm(written["loud"]) / np.linalg.norm(written["quiet"])
    assert written["loud"].shape == (32_000,) and ratio == pytest.approx(4.0 if channels == 2 else ratio, rel=0.6)


@pytest.mark.parametrize(
    ("reads", "text"),
    [("both", "dark trap, warm. trap, 120 BPM, in A minor, instrumental"), ("prompt", "dark trap, warm"), ("heard", None)],
)
def test_a_trainer_reads_no_words_that_the_clip_contradicts(reads, text):
    """Of 19 published takes four were trained on as `178 bpm … 140 BPM`, `instrumental … with vocals` and the like."""
    asked = "dark trap, 178 bpm, with a singer, warm"
    take = takes(["train", "train"])[1:].with_columns(
        ai_enhanced_prompt=pl.lit(None, pl.String), user_prompt=pl.lit(asked), heard_genre=pl.lit("trap")
    )
    policy = read_policy({"name": "x", "captions": {"trainer_reads": reads}}, origin="test")
    planned = plan_rows(take, nothing_heard, policy, pseudonym_key="k")
    (row,) = planned.rows.iter_rows(named=True)
    assert row["text"] == (text or row["caption"])
    assert row["prompt"] == asked
    assert planned.contradicted == 1
    as_heard = take.with_columns(tempo_bpm=pl.lit(178.0), has_vocals=pl.lit(True), vocals_probability=pl.lit(0.9))
    assert plan_rows(as_heard, nothing_heard, policy, pseudonym_key="k").contradicted == 0


def test_a_clip_without_a_voice_of_a_sung_take_is_not_said_to_have_one():
    take = takes(["train"]).with_columns(
        has_vocals=pl.lit(True),
        vocals_probability=pl.lit(0.95),
        user_prompt=pl.lit("soul, with a singer"),
        ai_enhanced_prompt=pl.lit(None, pl.String),
    )
    heard = {take["audio_sha256"][0]: {"vocals": {"vocal_segments_s": [[0.0, 25.0]]}}}
    policy = read_policy({"name": "x", "captions": {"trainer_reads": "both"}}, origin="test")
    rows = plan_rows(take, lambda _: heard, policy, pseudonym_key="k").rows
    assert rows["has_vocals"].to_list() == [True, False, False]
    assert ["with a singer" in text for text in rows["text"]] == [True, False, False]


def test_what_was_heard_is_read_of_some_takes_at_a_time(monkeypatch):
    """Of 120,000 takes at once it took 3.3 GB."""
    chosen = takes(["train", "valid", "test"]).with_columns(has_vocals=pl.lit(True))
    asked: list[list[str]] = []

    def heard_of(files: Sequence[str]) -> dict[str, Any]:
        asked.append(list(files))
        return {file: {"vocals": {"vocal_segments_s": [[0.0, 1.0 + int(file, 16) % 3]]}} for file in files}

    policy = read_policy({"name": "x"}, origin="test")
    at_once = plan_rows(chosen, heard_of, policy, pseudonym_key="k").rows
    monkeypatch.setattr(versions, "TAKES_AT_ONCE", 2)
    assert plan_rows(chosen, heard_of, policy, pseudonym_key="k").rows.equals(at_once)
    assert [len(files) for files in asked] == [3, 2, 1]
