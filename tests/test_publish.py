"""From a ledger to visible versions: all of one or nothing, equal bytes for equal inputs, nothing on both sides."""

import errno
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import pytest
import soundfile
import sqlalchemy as sa

from assets.exports import SHARES, dataset_manifest, training_jsonl
from keeptake import datasets
from keeptake.curation import publish as publishing
from keeptake.curation.building import Stage, rebuild, staged, write_csv, write_jsonl, write_parquet
from keeptake.curation.explain import explain
from keeptake.curation.policy import Policy, load_policy, read_policy
from keeptake.curation.publish import LEAKS, READERS, Published, publish, publish_staged
from keeptake.curation.readiness import readiness
from keeptake.curation.versions import apply, diff
from keeptake.embedding import DEFAULT_MODEL
from keeptake.errors import BusyError, ConfigurationError, PublicationError, UnavailableError
from keeptake.formats import audiofolder, clips, gate, hf_parquet, shares, webdataset
from keeptake.ledger.bulk import upsert
from keeptake.ledger.connection import Ledger
from keeptake.ledger.datasets import kept_by_genre, leave_out, versions, versions_that_hold
from keeptake.ledger.tables import (
    audio,
    dataset_rows,
    duplicate_pairs,
    embedding_scalers,
    features,
    generations,
    quality_scores,
    scaled_embeddings,
    selections,
)
from keeptake.settings import settings
from resources.ledger import LedgerResource

RATE_HZ = 22_050


def tone(number: int, duration_s: float = 1.5, *, amplitude: float = 0.3) -> bytes:
    times_s = np.arange(round(duration_s * RATE_HZ)) / RATE_HZ
    encoded = io.BytesIO()
    soundfile.write(encoded, amplitude * np.sin(2 * np.pi * (110 + 17 * number) * times_s), RATE_HZ, format="WAV")
    return encoded.getvalue()


class Studio:
    """A ledger with heard and scored takes, and the audio that belongs to them."""

    def __init__(self, ledger: Ledger, folder: Path) -> None:
        self.ledger, self.folder = ledger, folder
        self.audio: dict[str, bytes] = {}

    def add(
        self,
        numbers: Iterable[int],
        *,
        score: float = 0.9,
        content: bytes | None = None,
        duration_s: float = 1.5,
        **fields: object,
    ) -> None:
        takes, files, heard = [], [], []
        for number in numbers:
            content_of = content or tone(number)
            sha256 = hashlib.sha256(content_of).hexdigest()
            self.audio[sha256] = content_of
            files.append(
                {"sha256": sha256, "storage_key": sha256, "size_bytes": len(content_of), "format": "wav", "codec": "pcm_16"}
                | {"duration_s": duration_s, "sample_rate_hz": RATE_HZ, "channels": 1}
            )
            heard.append(
                {
                    "audio_sha256": sha256,
                    "versions": "rhythm=1",
                    "duration_s": duration_s,
                    "tempo_bpm": 120.0,
                    "tempo_confidence": 0.9,
                    "has_vocals": False,
                }
            )
            known = {"generation_id": f"gen_{number}", "identity_sha256": hashlib.sha256(b"%d" % number).digest()}
            known |= {
                "user_id": f"user{number % 5}",
                "user_prompt": f"beat number {number}",
                "provider": "suno",
                "source": "test",
            }
            known |= {"audio_url": f"https://cdn.example/{number}.wav?sig=x", "captured_on": date(2026, 1, 1)}
            known |= {"source": "test", "status": "scored"}
            known |= {"created_at": datetime(2026, 1, 1, tzinfo=UTC), "audio_sha256": sha256, "audio_status": "stored"}
            takes.append(known | {"generation_params": {"genre": f"genre{number % 3}"}, "quality_score": score} | fields)
        with self.ledger.begin() as connection:
            upsert(connection, audio, files, conflict=["sha256"])
            upsert(connection, features, heard, conflict=["audio_sha256"])
            upsert(connection, generations, takes, conflict=["generation_id"])
        self.score({take["generation_id"]: score for take in takes})

    def score(self, totals: dict[str, float]) -> None:
        with self.ledger.begin() as connection:
            ids = {
                row.generation_id: row.id for row in connection.execute(sa.select(generations.c.generation_id, generations.c.id))
            }
            common = {"formula": "seed_v1", "terms": {}, "feedback_revision": 0, "features_versions": "rhythm=1"}
            rows = [{"generation": ids[name], "total": total, **common} for name, total in totals.items()]
            upsert(connection, quality_scores, rows, conflict=["generation", "formula"])

    def sha256_of(self, number: int) -> str:
        with self.ledger.begin() as connection:
            query = sa.select(generations.c.audio_sha256).where(generations.c.generation_id == f"gen_{number}")
            return str(connection.scalar(query))

    def mark_copies(self, a: int, b: int, relation: str = "duplicate") -> None:
        first, second = sorted((self.sha256_of(a), self.sha256_of(b)))
        pair = {"first_sha256": first, "second_sha256": second, "version": "1", "evidence": {"relation": relation}}
        with self.ledger.begin() as connection:
            connection.execute(duplicate_pairs.insert(), pair)

    def place(self, number: int, vector: list[float]) -> None:
        """Give a take's audio its place in the space that search uses."""
        space = {
            "model": DEFAULT_MODEL,
            "model_version": "1",
            "version": 1,
            "fitted_on": 9,
            "dims": len(vector),
            "is_current": True,
        }
        space |= {"mean": [0.0] * len(vector), "deviation": [1.0] * len(vector)}
        with self.ledger.begin() as connection:
            upsert(connection, embedding_scalers, [space], conflict=["model", "model_version", "version"])
            scaler = connection.scalar(sa.select(embedding_scalers.c.id))
            values = {"audio_sha256": hashlib.sha256(tone(number)).hexdigest(), "scaler": scaler, "vector": vector}
            connection.execute(scaled_embeddings.insert(), values)

    def read(self, sha256: str) -> bytes:
        return self.audio[sha256]

    def publish(self, policy: Policy, **changes: object) -> Published:
        return publish(
            self.ledger,
            policy,
            **{"read_audio": self.read, "datasets_dir": self.folder, "pseudonym_key": "key"} | changes,  # type: ignore[arg-type]
        )


@pytest.fixture
def whole_studio(ledger, tmp_path, monkeypatch) -> Studio:
    """A ledger of 24 takes; the gate asks the documented rules alone, as the packages have a test of their own."""
    monkeypatch.setattr(gate.hugging_face, "is_installed", lambda: False)
    studio = Studio(ledger, tmp_path / "datasets")
    studio.add(range(24))
    return studio


@pytest.fixture
def studio(whole_studio, monkeypatch) -> Studio:
    """The same without the pictures on the card, which cost four fifths of publishing so few takes."""
    monkeypatch.setattr(publishing.card, "pictures", lambda rows, lineage: {})
    return whole_studio


def policy(**sections: object) -> Policy:
    shares = {"splits": {"valid": 0.25, "test": 0.25}}
    return read_policy({"name": "demo", "select": {"min_score": 0.5}} | shares | sections, origin="test")


def visible(studio: Studio) -> list[str]:
    return datasets.visible(studio.folder / "demo")


def column(ledger: Ledger, query: sa.Select) -> list:
    with ledger.begin() as connection:
        return list(connection.scalars(query))


def test_published_version_is_whole_and_recorded(whole_studio):
    published = whole_studio.publish(policy())
    assert published.is_new and sum(published.rows.values()) == 24
    assert datasets.verify("demo", datasets_dir=whole_studio.folder) == []
    assert column(whole_studio.ledger, sa.select(generations.c.dataset_version).distinct()) == [f"demo/{published.version}"]
    assert column(whole_studio.ledger, sa.select(generations.c.used_for_training).distinct()) == [True]
    assert len(column(whole_studio.ledger, sa.select(dataset_rows.c.row_id))) == 24
    assert not (whole_studio.folder / "demo" / ".staged").exists()


def test_version_loads_with_the_real_packages(ledger, tmp_path):
    studio = Studio(ledger, tmp_path / "datasets")
    studio.add(range(8))
    published = studio.publish(policy())
    asked = {row["asked"] for row in published.gate}
    assert {"datasets 5.2.0", "webdataset 1.0.2"} <= asked
    assert all(row["rows_in"] == row["rows_out"] for row in published.gate)


def test_real_audio_of_every_format_is_published(ledger, tmp_path, dev_data):
    """A file of each format and rate that providers send, long ones cut; the gate decodes every clip."""
    studio = Studio(ledger, tmp_path / "datasets")
    labels = [json.loads(text) for text in (dev_data / "labels.jsonl").read_text().splitlines()]
    sound = [label for label in labels if not label.get("corrupt") and label["subset"] != "case" and label["duration_s"] >= 1.0]
    by_format = {Path(label["file"]).suffix: label for label in reversed(sound)}
    longest = max(sound, key=lambda label: label["duration_s"])
    for number, label in enumerate([*by_format.values(), longest]):
        studio.add([number], content=(dev_data / label["file"]).read_bytes(), duration_s=label["duration_s"])
    published = studio.publish(policy(audio={"max_clip_s": 12.0}))
    rows = datasets.load("demo", datasets_dir=studio.folder)
    assert rows["parent"].n_unique() == len(by_format) + 1 - (longest in by_format.values())
    assert {".mp3", ".wav", ".flac", ".ogg", ".m4a", ".opus"} <= set(by_format)
    assert rows.height > rows["parent"].n_unique() and rows["duration_s"].max() <= 12.0
    assert {row["rows_in"] - row["rows_out"] for row in published.gate} == {0}


def test_same_inputs_are_the_same_version(studio):
    first, second = studio.publish(policy()), studio.publish(policy())
    assert (second.version, second.is_new, second.rows) == (first.version, False, first.rows)
    assert visible(studio) == [first.version]


def test_changed_score_and_changed_policy_are_new_versions(studio):
    first = studio.publish(policy())
    studio.score({"gen_3": 0.6})
    second = studio.publish(policy())
    third = studio.publish(policy(select={"min_score": 0.55}))
    assert [version.version.partition("-")[0] for version in (first, second, third)] == ["v1", "v2", "v3"]
    changes = datasets.diff("demo", "v1", "v2", datasets_dir=studio.folder)
    assert changes.select("generation_id", "change", "columns").rows() == [("gen_3", "changed", ["quality_score"])]
    assert datasets.verify("demo", "v1", datasets_dir=studio.folder) == []


def test_what_captions_dare_not_say_is_no_label_either(studio):
    """A key of confidence 0.05 was in every column and sidecar that trainers read; the label agreed with half of such."""
    with studio.ledger.begin() as connection:
        unsure = {"key": "A minor", "key_confidence": 0.05, "tempo_confidence": 0.2}
        connection.execute(features.update().where(features.c.audio_sha256 == studio.sha256_of(0)).values(unsure))
        sure = {"key": "A minor", "key_confidence": 0.5}
        connection.execute(features.update().where(features.c.audio_sha256 == studio.sha256_of(1)).values(sure))
    studio.publish(policy())
    rows = datasets.load("demo", datasets_dir=studio.folder)
    told = {row["generation_id"]: row for row in rows.iter_rows(named=True)}
    assert [told[f"gen_{n}"][name] for n in (0, 1) for name in ("key", "tempo_bpm", "take_tempo_bpm")] == [
        *(None, None, None),
        *("A minor", 120.0, 120.0),
    ]
    (sidecar,) = studio.folder.glob(f"demo/v1-*/*/{told['gen_0']['id']}.json")
    assert {json.loads(sidecar.read_text())[name] for name in ("key", "bpm")} == {None}


def test_a_take_that_is_out_again_is_not_in_the_newest_version(studio):
    """The version that said so before was found and nothing published: the newest one kept the disliked take for good."""
    versions = []
    for liked in (False, None, False):
        studio.add([0], liked=liked)
        versions.append(studio.publish(policy()))
    assert [version.is_new for version in versions] == [True, True, True]
    assert [version.version.partition("-")[0] for version in versions] == ["v1", "v2", "v3"]
    assert versions[2].version.partition("-")[2] == versions[0].version.partition("-")[2]
    held = [set(datasets.load("demo", version=v, datasets_dir=studio.folder)["generation_id"]) for v in ("v1", "v2", "v3")]
    assert ["gen_0" in takes for takes in held] == [False, True, False]
    assert datasets.load("demo", datasets_dir=studio.folder).height == 23
    assert not studio.publish(policy()).is_new


def test_diff_tells_what_came_and_went_and_rebuilds_the_newer_rows(studio):
    studio.publish(policy())
    studio.add(range(24, 30))
    studio.score({"gen_0": 0.1, "gen_1": 0.7})
    studio.publish(policy())
    old, new = (datasets.load("demo", version=version, datasets_dir=studio.folder).drop("path") for version in ("v1", "v2"))
    changes = diff(old, new)
    told = {change: set(rows["generation_id"]) for (change,), rows in changes.group_by("change")}
    assert told == {"added": {f"gen_{n}" for n in range(24, 30)}, "removed": {"gen_0"}, "changed": {"gen_1"}}
    assert apply(old, changes, new).equals(new)
    reasons = dict(datasets.diff("demo", "v1", datasets_dir=studio.folder).select("generation_id", "reason").iter_rows())
    assert (reasons["gen_0"], reasons["gen_1"], reasons["gen_24"]) == (
        "low-score",
        "changed: quality_score",
        "passes",
    )
    assert explain(studio.ledger, "gen_0")["decisions"][0]["reason"] == "low-score"


def test_diff_tells_first_how_a_version_was_made_otherwise(studio, monkeypatch):
    """Every clip had another loudness and rate, and the diff said: none. Rows alone were compared, which say nothing of these."""
    studio.publish(policy())
    monkeypatch.setitem(publishing.FORMAT_VERSIONS, "clips", "clips-of-tomorrow")
    studio.publish(policy(audio={"sample_rate_hz": 44_100, "loudness_lufs": -14.0}, licences={"by_provider": {"suno": "owned"}}))
    changes = datasets.diff("demo", "v1", "v2", datasets_dir=studio.folder)
    made = changes.filter(pl.col("change") == "made-otherwise")
    assert changes.head(made.height).equals(made) and made["id"].null_count() == made["generation_id"].null_count() == made.height
    told = {columns[0]: reason for columns, reason in made.select("columns", "reason").iter_rows()}
    assert told == {
        "policy.audio.sample_rate_hz": "32000 → 44100",
        "policy.audio.loudness_lufs": "null → -14.0",
        "policy.licences.by_provider.suno": "null → owned",
        "formats.clips": f"{clips.CLIPS_VERSION} → clips-of-tomorrow",
    }
    assert set(changes["change"]) == {"made-otherwise", "changed"}  # the licence stands in every row
    assert datasets.diff("demo", "v1", "v1", datasets_dir=studio.folder).is_empty()


def test_diff_calls_cut_anew_only_what_is_in_with_other_clips(studio):
    """From the newer version back to the older one, every take that had come since was told to be cut anew."""
    studio.add([30], content=tone(30, 20.0), duration_s=20.0)
    studio.publish(policy())
    studio.add([31])
    studio.publish(policy(audio={"max_clip_s": 8.0}))
    older, newer = visible(studio)
    forth, back = (datasets.diff("demo", *given, datasets_dir=studio.folder) for given in ((older, newer), (newer, older)))
    gone = [dict(each.filter(change="removed").select("generation_id", "reason").iter_rows()) for each in (forth, back)]
    assert gone == [{"gen_30": "cut-anew"}, {"gen_30": "cut-anew", "gen_31": f"not in {older}"}]


def test_rows_keep_their_splits_from_version_to_version(studio):
    studio.publish(policy())
    studio.add(range(24, 80))
    studio.mark_copies(2, 30)
    studio.publish(policy())
    old, new = (datasets.load("demo", version=version, datasets_dir=studio.folder) for version in ("v1", "v2"))
    both = old.join(new, on="id")
    assert both.height >= 23 and both.filter(pl.col("split") != pl.col("split_right")).is_empty()


def test_rebuild_gives_equal_bytes_with_other_threads_and_in_another_process(whole_studio, tmp_path):
    everything = policy(
        formats={"has_ace_step": True, "has_stable_audio": True}, audio={"has_master": True, "min_clip_s": 0.5, "max_clip_s": 1.2}
    )
    published = whole_studio.publish(everything, threads=2)
    assert sum(published.rows.values()) == 48
    whole_studio.score({"gen_3": 0.2})  # what the ledger says today does not matter
    assert rebuild(published.path, tmp_path / "again", read_audio=whole_studio.read, threads=1) == []
    for sha256, content in whole_studio.audio.items():
        (tmp_path / sha256).write_bytes(content)
    script = (
        "import sys; from pathlib import Path; from keeptake.curation.building import rebuild\n"
        "folder, to, store = map(Path, sys.argv[1:])\n"
        "print(rebuild(folder, to, read_audio=lambda sha256: (store / sha256).read_bytes(), threads=2))"
    )
    environment = os.environ | {"POLARS_MAX_THREADS": "1"}
    command = [sys.executable, "-c", script, str(published.path), str(tmp_path / "elsewhere"), str(tmp_path)]
    assert subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip() == "[]"


def test_control_changed_audio_shows_in_a_rebuild(studio, tmp_path):
    published = studio.publish(policy())
    studio.audio = dict.fromkeys(studio.audio, tone(99))
    differing = rebuild(published.path, tmp_path / "again", read_audio=studio.read)
    assert any(name.endswith(".flac differs") for name in differing)


def test_rebuild_never_writes_over_anything(studio):
    published = studio.publish(policy())
    with pytest.raises(PublicationError, match="is not empty"):
        rebuild(published.path, published.path, read_audio=studio.read)


def fails_in(step: str) -> Callable[[pytest.MonkeyPatch], None]:
    def arrange(monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object, **__: object) -> None:
            raise KeyboardInterrupt(step)

        monkeypatch.setattr(publishing, step, fail)

    return arrange


@pytest.mark.parametrize("step", ["write_audio", "write_jsonl", "write_parquet", "write_csv", "check_leaks", "finish", "inspect"])
def test_broken_off_before_the_rename_nothing_is_visible(studio, monkeypatch, step):
    first = studio.publish(policy())
    studio.add([24])
    with monkeypatch.context() as broken:
        fails_in(step)(broken)
        with pytest.raises(KeyboardInterrupt):
            studio.publish(policy())
    assert visible(studio) == [first.version]
    for asked in (None, first.version, "v1", 1, "1"):  # the command line knows texts alone
        assert datasets.find("demo", asked, datasets_dir=studio.folder).name == first.version
    assert column(studio.ledger, sa.select(generations.c.used_for_training).where(generations.c.generation_id == "gen_24")) == [
        False
    ]
    second = studio.publish(policy())
    assert second.version.startswith("v2-") and datasets.verify("demo", datasets_dir=studio.folder) == []


def test_broken_off_between_rename_and_ledger_the_next_call_records_it(studio, monkeypatch):
    with monkeypatch.context() as broken:
        fails_in("record")(broken)
        with pytest.raises(KeyboardInterrupt):
            studio.publish(policy())
    assert len(visible(studio)) == 1 and column(studio.ledger, sa.select(dataset_rows.c.row_id)) == []
    again = studio.publish(policy())
    assert not again.is_new and visible(studio) == [again.version]
    assert len(column(studio.ledger, sa.select(dataset_rows.c.row_id))) == 24
    assert column(studio.ledger, sa.select(generations.c.used_for_training).distinct()) == [True]


@pytest.fixture
def published_and_killed(studio, monkeypatch):
    """A version that was made visible by a process that died before the ledger knew of it, and rows that moved since."""
    with monkeypatch.context() as broken:
        fails_in("record")(broken)
        with pytest.raises(KeyboardInterrupt):
            studio.publish(policy())
    where = dict(datasets.load("demo", datasets_dir=studio.folder).select("generation_id", "split").iter_rows())
    in_test, in_train = (next(name for name, split in where.items() if split == wanted) for wanted in ("test", "train"))
    studio.score({in_test: 0.1, in_train: 0.6})
    studio.add([90], user_prompt=f"beat number {in_test.removeprefix('gen_')}")
    return studio, in_test


def test_a_version_whose_process_was_killed_is_recorded_before_the_next_choice(published_and_killed):
    """Only a version with equal rows was recorded later: where one had moved, its test takes were free to enter train."""
    studio, in_test = published_and_killed
    second = studio.publish(policy(splits={"valid": 0.0, "test": 0.0}))
    assert [row["version"].partition("-")[0] for row in versions(studio.ledger, "demo")] == ["v1", "v2"]
    assert second.is_new and len(versions_that_hold(studio.ledger, in_test)) == 1
    assert explain(studio.ledger, "gen_90")["decisions"][0]["split"] == "test"


def test_control_without_the_record_kin_of_a_test_take_may_go_anywhere(published_and_killed, monkeypatch):
    studio, in_test = published_and_killed
    monkeypatch.setattr(publishing, "_record_what_is_visible", lambda *_: None)
    studio.publish(policy(splits={"valid": 0.0, "test": 0.0}))
    assert versions_that_hold(studio.ledger, in_test) == []
    assert explain(studio.ledger, "gen_90")["decisions"][0]["split"] == "train"


def test_a_visible_version_that_cannot_be_recorded_is_named(published_and_killed):
    studio, _ = published_and_killed
    (version,) = visible(studio)
    (studio.folder / "demo" / version / "lineage" / "rows.parquet").unlink()
    with pytest.raises(PublicationError, match=rf"demo/{version} is visible, unknown to the ledger, and lacks .*rows.parquet"):
        studio.publish(policy())


def test_a_version_of_another_ledger_stops_no_publication(studio):
    first = studio.publish(policy())
    publishing.shutil.copytree(first.path, studio.folder / "demo" / "v1-0123456789ab")
    studio.score({"gen_3": 0.6})
    second = studio.publish(policy())
    assert [row["version"] for row in versions(studio.ledger, "demo")] == [first.version, second.version]


def test_folders_that_are_no_versions_disturb_nobody(studio):
    """A copy that somebody kept beside a version, named with .bak, made list, publish and load of every dataset fail."""
    first = studio.publish(policy())
    home = studio.folder / "demo"
    for name in (f"{first.version}.bak", "v2-old", "v3-0123456789AB", "vx-0123456789ab"):
        publishing.shutil.copytree(first.path, home / name)
    assert visible(studio) == [first.version]
    assert [row["version"] for row in datasets.list_versions(datasets_dir=studio.folder)] == [first.version]
    assert datasets.load("demo", datasets_dir=studio.folder).height == 24
    assert not studio.publish(policy()).is_new


def test_killed_process_leaves_nothing_visible(studio, tmp_path):
    for sha256, content in studio.audio.items():
        (tmp_path / sha256).write_bytes(content)
    script = (
        "import sys, time; from pathlib import Path\n"
        "from keeptake.curation.policy import read_policy; from keeptake.curation.publish import publish\n"
        "from keeptake.ledger.connection import Ledger\n"
        "def slow(sha256):\n    time.sleep(0.1); return (Path(sys.argv[3]) / sha256).read_bytes()\n"
        "policy = read_policy({'name': 'demo', 'select': {'min_score': 0.5}}, origin='test')\n"
        "publish(Ledger(sys.argv[1]), policy, read_audio=slow, datasets_dir=Path(sys.argv[2]), pseudonym_key='key')"
    )
    command = [sys.executable, "-c", script, studio.ledger.url, str(studio.folder), str(tmp_path)]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 60
    while not list(studio.folder.glob("demo/.staged/*/train/*.flac")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert list(studio.folder.glob("demo/.staged/*/train/*.flac")) and visible(studio) == []
    time.sleep(0.2)  # the server notices that the claim's holder is gone
    assert studio.publish(policy()).is_new
    assert datasets.verify("demo", datasets_dir=studio.folder) == []


def test_stage_of_a_broken_attempt_is_not_published_later(studio, monkeypatch):
    """A stage that a failed gate left behind was once taken up by a later run whose own rows were published already."""
    first = studio.publish(policy())
    studio.add([24])
    with monkeypatch.context() as broken:
        fails_in("inspect")(broken)
        with pytest.raises(KeyboardInterrupt):
            studio.publish(policy())
    assert staged(studio.folder, "demo") is not None
    studio.score({"gen_24": 0.1})
    assert studio.publish(policy()).version == first.version
    assert staged(studio.folder, "demo") is None


def test_steps_of_a_run_do_what_one_call_does(studio):
    stage = publishing.stage_version(
        studio.ledger, policy(), read_audio=studio.read, datasets_dir=studio.folder, pseudonym_key="key"
    )
    for write in (write_jsonl, write_parquet, write_csv):
        found = staged(studio.folder, "demo")
        assert found is not None and found.version == stage.version
        write(found)
    published = publish_staged(studio.ledger, staged(studio.folder, "demo"))
    assert published.is_new and studio.publish(policy()).version == published.version


def test_two_publications_of_one_dataset_do_not_mix(studio):
    with studio.ledger.claim("publishing demo"), pytest.raises(BusyError):
        studio.publish(policy())


def stage_of(studio: Studio) -> Stage:
    return publishing.stage_version(
        studio.ledger, policy(), read_audio=studio.read, datasets_dir=studio.folder, pseudonym_key="key"
    )


def test_what_another_publication_has_half_written_does_not_become_visible(studio):
    """Two runs share a folder: the first made the second's stage visible without Parquet and CSV, and verify found no fault."""
    first = stage_of(studio)
    for write in (write_jsonl, write_parquet, write_csv):
        write(first)
    second = stage_of(studio)
    write_jsonl(second)
    with pytest.raises(PublicationError, match="parquet was not written"):
        publish_staged(studio.ledger, first)
    assert visible(studio) == []
    write_parquet(second)
    write_csv(second)
    assert publish_staged(studio.ledger, second).is_new


def test_a_publication_whose_stage_another_one_took_says_so(studio):
    stage = stage_of(studio)
    publishing.shutil.rmtree(stage.folder)
    with pytest.raises(BusyError, match="another publication of this dataset began"):
        write_parquet(stage)


def move_to(studio: Studio, number: int, split: str) -> None:
    """Plant a row on the other side, behind the back of everything that keeps groups together."""
    with studio.ledger.begin() as connection:
        of_take = selections.c.generation.in_(sa.select(generations.c.id).where(generations.c.generation_id == f"gen_{number}"))
        connection.execute(sa.update(selections).where(of_take).values(split=split, is_kept=True, reason=None))


@pytest.mark.parametrize("kind", ["exact", "prompt", "fingerprint", "excerpt", "embedding", "user"])
def test_planted_leaks_block_publication(studio, monkeypatch, kind):
    if kind == "exact":
        studio.add([50], content=tone(1))
    if kind == "prompt":
        studio.add([50], user_prompt="  Beat NUMBER 1!")
    if kind in ("fingerprint", "excerpt", "embedding", "user"):
        studio.add([50], user_id="user1")
    if kind in ("fingerprint", "excerpt"):
        studio.mark_copies(1, 50, "excerpt" if kind == "excerpt" else "duplicate")
    if kind == "embedding":
        studio.place(1, [1.0, 0.0, 0.02])
        studio.place(50, [1.0, 0.02, 0.0])
    choose = publishing.curate

    def curate(ledger, policy):
        chosen = choose(ledger, policy)
        move_to(studio, 1, "train")
        move_to(studio, 50, "test")
        return chosen

    monkeypatch.setattr(publishing, "curate", curate)
    with pytest.raises(PublicationError, match=f"leaks between splits .*{kind}"):
        studio.publish(policy(splits={"valid": 0.1, "test": 0.1, "hold_out_users": kind == "user"}))
    assert visible(studio) == []


def test_a_published_part_is_in_the_split_of_its_whole(studio):
    """Excerpts were filtered out of the pairs that groups and leaks are made of: song and clip stood in two splits."""
    for whole in range(0, 24, 2):
        studio.mark_copies(whole, whole + 1, "excerpt")
    published = studio.publish(policy())
    where = dict(datasets.load("demo", datasets_dir=studio.folder).select("generation_id", "split").iter_rows())
    assert sum(published.rows.values()) == 24 and published.left_out == {} and len(set(where.values())) > 1
    assert all(where[f"gen_{whole}"] == where[f"gen_{whole + 1}"] for whole in range(0, 24, 2))


def test_control_where_excerpts_make_no_group_the_last_look_stops_the_version(studio, monkeypatch):
    for whole in range(0, 24, 2):
        studio.mark_copies(whole, whole + 1, "excerpt")
    choose = publishing.choose
    monkeypatch.setattr(publishing, "choose", lambda *given, excerpts, **named: choose(*given, **named))
    with pytest.raises(PublicationError, match=r"leaks between splits \(\d+ excerpt\)"):
        studio.publish(policy())
    assert visible(studio) == []


def test_empty_selection_says_why_and_leaves_the_present_version(studio):
    first = studio.publish(policy())
    with pytest.raises(PublicationError, match=rf"keeps no take \(low-score 24\): loosen {settings().policies_dir}/demo.toml"):
        studio.publish(policy(select={"min_score": 0.95}))
    assert visible(studio) == [first.version]


def test_the_policy_to_loosen_is_named_in_the_folder_of_the_settings(studio, monkeypatch):
    """It was said to lie in policies/, whatever KEEPTAKE_POLICIES_DIR named."""
    monkeypatch.setenv("KEEPTAKE_POLICIES_DIR", "/of/the/team")
    settings.cache_clear()
    with pytest.raises(PublicationError, match=r"loosen /of/the/team/demo.toml"):
        studio.publish(policy(select={"min_score": 0.95}))
    settings.cache_clear()


def test_missing_audio_is_named(studio):
    gone = studio.sha256_of(7)

    def read(sha256: str) -> bytes:
        if sha256 == gone:
            raise FileNotFoundError(sha256)
        return studio.audio[sha256]

    with pytest.raises(PublicationError, match=r"the audio of gen_7 .* cannot be read.*nothing was published"):
        studio.publish(policy(), read_audio=read)
    assert visible(studio) == []


@pytest.mark.parametrize("kind", [UnavailableError, ConfigurationError])
def test_a_store_that_is_away_or_wrong_is_no_fault_of_the_take(studio, kind):
    """With S3 away, people were told to fetch the take again, and the command ended with the code of a refused version."""

    def read(sha256: str) -> bytes:
        raise kind("the audio store does not answer")

    with pytest.raises(kind, match=r"^the audio store does not answer$"):
        studio.publish(policy(), read_audio=read)
    assert visible(studio) == []


def test_audio_that_no_longer_decodes_is_named(studio):
    studio.audio[studio.sha256_of(7)] = b"RIFF, once"
    with pytest.raises(PublicationError, match=r"the audio of gen_7 .* cannot be read"):
        studio.publish(policy())


@pytest.mark.parametrize("step", ["write_audio", "write_parquet", "finish"])
def test_full_disk_is_one_sentence(studio, monkeypatch, step):
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    target = hf_parquet if step == "write_parquet" else publishing
    monkeypatch.setattr(target, "write" if step == "write_parquet" else step, fail)
    with pytest.raises(PublicationError, match=r"is full .*make room, then publish again; nothing was published"):
        studio.publish(policy())
    assert visible(studio) == []


def test_reader_that_rejects_leaves_the_stage_for_a_look(studio, monkeypatch):
    monkeypatch.setattr(audiofolder, "metadata", lambda row, rate: {"file_name": f"{row['id']}.flac", "text": ""})
    monkeypatch.setattr(webdataset, "write", lambda *_, **__: None)
    with pytest.raises(PublicationError, match=r"readers would lose rows: .* it lies in .*staged"):
        studio.publish(policy())
    assert visible(studio) == [] and staged(studio.folder, "demo") is not None


@pytest.fixture
def staged_version(studio, monkeypatch):
    """A version of a shipped policy, staged as the graph stages it."""
    monkeypatch.setenv("KEEPTAKE_HOME", str(studio.folder.parent))
    monkeypatch.setenv("KEEPTAKE_DATABASE_URL", studio.ledger.url)
    settings.cache_clear()
    chosen = load_policy("everything-good", settings().policies_dir)
    stage = publishing.stage_version(
        studio.ledger, chosen, read_audio=studio.read, datasets_dir=settings().datasets_location, pseudonym_key="key"
    )
    for write in (write_jsonl, write_parquet, write_csv):
        write(stage)
    yield stage
    settings.cache_clear()


def shown_checks(raise_on_error: bool) -> dict[str, dg.AssetCheckEvaluation]:
    done = dg.materialize(
        [dataset_manifest], resources={"ledger": LedgerResource()}, partition_key="everything-good", raise_on_error=raise_on_error
    )
    return {found.check_name: found for found in done.get_asset_check_evaluations()}


@pytest.mark.parametrize("damage", ["readers_lose_no_row", "nothing_leaks_between_splits", None])
def test_the_graph_shows_the_check_that_blocks(studio, staged_version, damage):
    if damage == "readers_lose_no_row":
        next((staged_version.folder / "train").glob("*.flac")).unlink()
    if damage == "nothing_leaks_between_splits":
        first, second = (staged_version.rows.filter(pl.col("split") == split)["generation_id"][0] for split in ("train", "test"))
        studio.mark_copies(*(int(name.removeprefix("gen_")) for name in (first, second)))
    found = shown_checks(raise_on_error=damage is None)
    is_visible = datasets.visible(staged_version.location.parent) == [staged_version.version]
    if damage is None:
        assert {name: check.passed for name, check in found.items()} == {LEAKS: True, READERS: True, SHARES: True} and is_visible
        assert len(found[READERS].metadata["readers"].records) > 5
        assert next(iter(found[READERS].metadata["readers"].records[0].data)) == "reader", "in the order in which people read"
    else:
        assert {name: check.passed for name, check in found.items()} == {damage: False} and not is_visible
        assert found[damage].metadata["rows"].value >= 1 and "publish" in found[damage].description


def shown_of(asset: dg.AssetsDefinition) -> dict[str, dg.MetadataValue]:
    done = dg.materialize([asset], resources={"ledger": LedgerResource()}, partition_key="everything-good")
    return dict(done.asset_materializations_for_node(asset.key.to_user_string())[0].metadata)


def test_a_run_with_nothing_to_publish_shows_the_present_version(studio, staged_version):
    """It showed "nothing: no version is staged", and no reader, of a version that was there."""
    written, readers = shown_of(training_jsonl), shown_checks(raise_on_error=True)[READERS].metadata["readers"]
    again, (splits,) = shown_of(training_jsonl), (shown_of(dataset_manifest)["splits"],)

    assert [each["is_written_in_this_run"].value for each in (written, again)] == [True, False]
    assert [each["version"].value for each in (written, again)] == [staged_version.version] * 2
    assert again["dagster/row_count"].value == written["dagster/row_count"].value == 24
    assert again["examples"].records[-1].data["id"] == "5 of 24 shown"
    assert shown_checks(raise_on_error=True)[READERS].metadata["readers"] == readers and len(readers.records) > 5
    assert sum(record.data["clips"] for record in splits.records) == 24


def test_a_version_unlike_the_shares_that_were_asked_for_is_published_and_told(studio, staged_version, monkeypatch):
    """One with 71 % of its clips in valid, where 10 % were asked for, was published silently."""
    monkeypatch.setattr(shares, "MIN_CLIPS", 1)
    monkeypatch.setattr(shares, "TOLERANCE", 0.0)
    found = shown_checks(raise_on_error=True)[SHARES]
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN) and "was asked to hold" in found.description
    assert datasets.visible(staged_version.location.parent) == [staged_version.version]


def test_publishing_tells_what_it_is_at(studio, staged_version):
    """A manifest took 59 s without a word in the log."""
    told = []
    publish_staged(studio.ledger, staged_version, packages=False, progress=lambda stage, done, total: told.append((stage, done)))
    assert told[:2] == [("looking for leaks", 0), ("looking for leaks", 1)]
    assert {"card, Croissant and manifest", "decoding every clip", "reading by the trainers' rules"} < {
        stage for stage, _ in told
    }


def test_takes_too_quiet_to_train_on_are_left_out_by_name(studio):
    studio.add([60, 61], content=tone(60, amplitude=1e-4))
    studio.add([61], content=tone(61, amplitude=1e-4))
    published = studio.publish(policy())
    assert sum(published.rows.values()) == 24 and published.left_out == {"too-quiet": 2}
    assert explain(studio.ledger, "gen_60")["decisions"][0]["reason"] == "too-quiet"
    assert not studio.publish(policy()).is_new
    assert explain(studio.ledger, "gen_60")["decisions"][0]["reason"] == "too-quiet"


def test_every_take_tells_its_story(studio):
    studio.add([30], content=tone(3), score=0.8, liked=True)
    studio.mark_copies(4, 5)
    first = studio.publish(policy())
    story = json.loads(json.dumps(explain(studio.ledger, "gen_3")))
    assert story["captured"]["dataset_version"] == f"demo/{first.version}"
    assert [version["version"] for version in story["versions"]] == [first.version]
    assert story["scores"][0]["total"] == 0.9 and story["audio"]["status"] == "stored"
    assert story["duplicates"] == [{"generation_id": "gen_30", "evidence": {"sha256": "the same bytes"}}]
    left_out = explain(studio.ledger, "gen_30")
    assert datetime.fromisoformat(left_out["decisions"][0].pop("decided_at")).tzinfo is not None
    assert left_out["decisions"][0] | {"group_id": None} == {
        "policy": "demo",
        "is_kept": False,
        "reason": "duplicate",
        "detail": "the same audio as gen_3",
        "split": None,
        "group_id": None,
    }
    assert left_out["versions"] == []
    assert [found["generation_id"] for found in explain(studio.ledger, "gen_4")["duplicates"]] == ["gen_5"]
    with pytest.raises(ConfigurationError, match="no take gen_99"):
        explain(studio.ledger, "gen_99")


def test_siblings_are_those_whose_prompts_splits_call_equal(studio):
    """Explain compared prompts in lower case alone: it named no sibling for a take that stood in its sibling's group."""
    studio.add([70], user_prompt="  Beat NUMBER 3!", content=tone(70))
    assert explain(studio.ledger, "gen_3")["siblings"] == ["gen_70"]
    assert explain(studio.ledger, "gen_70")["siblings"] == ["gen_3"]
    assert explain(studio.ledger, "gen_4")["siblings"] == []


def test_the_time_of_a_decision_is_that_of_its_last_change(studio):
    """The time stayed that of the first decision, whatever was decided since."""

    def times() -> dict[str, datetime]:
        query = sa.select(generations.c.generation_id, selections.c.decided_at).join(
            generations, generations.c.id == selections.c.generation
        )
        with studio.ledger.begin() as connection:
            return dict(connection.execute(query).all())

    publishing.curate(studio.ledger, policy())
    first = times()
    studio.score({"gen_3": 0.1})
    publishing.curate(studio.ledger, policy())
    assert {name for name, at in times().items() if at > first[name]} == {"gen_3"}
    leave_out(studio.ledger, "demo", ["gen_5"], "too-quiet", "every clip of it")
    assert {name for name, at in times().items() if at > first[name]} == {"gen_3", "gen_5"}


def test_readiness_counts_what_the_policy_keeps_by_genre(studio):
    goal = policy(readiness={"takes": 100}, balance={"genre_cap": 0.5})
    publishing.curate(studio.ledger, goal)
    found = readiness(kept_by_genre(studio.ledger, "demo"), goal)
    assert (found.takes, found.wanted, found.is_ready) == (24, 100, False)
    assert found.by_genre[0] == {"genre": "genre0", "takes": 8, "share": 0.3333, "room": 42}
    assert found.sentence() == "not ready: 24 of 100 takes; scarcest: genre0 8, genre1 8, genre2 8"
    assert readiness({}, goal).by_genre == [] and readiness({"trap": 100}, goal).is_ready


def test_versions_that_hold_a_take_are_one_query_even_after_it_left(studio):
    first = studio.publish(policy())
    studio.score({"gen_2": 0.1})
    studio.publish(policy())
    held = versions_that_hold(studio.ledger, "gen_2")
    assert [(row["name"], row["version"]) for row in held] == [("demo", first.version)]
    assert Path(held[0]["path"], held[0]["split"], f"{held[0]['row_id']}.flac").is_file()


def test_python_users_load_frames_paths_and_torch(studio):
    import torch

    published = studio.publish(policy())
    frame = datasets.load("demo", split="train", datasets_dir=studio.folder)
    assert frame.height == published.rows["train"] and all(Path(path).is_file() for path in frame["path"])
    assert datasets.load("demo", kind="path", datasets_dir=studio.folder) == published.path
    clips = datasets.load("demo", split="train", kind="torch", datasets_dir=studio.folder)
    waveform, text = clips[0]
    assert waveform.shape == (1, 48_000) and waveform.dtype == torch.float32 and text.startswith("beat number")
    assert next(iter(torch.utils.data.DataLoader(clips, batch_size=4)))[0].shape == (4, 1, 48_000)
    short = (torch.ones(1, 1_000), "short")
    waveforms, samples, texts = datasets.padded([clips[0], short])  # as they come, torch refuses to stack them
    assert waveforms.shape == (2, 1, 48_000) and samples.tolist() == [48_000, 1_000] and texts == [clips[0][1], "short"]
    assert torch.equal(waveforms[0], clips[0][0]) and waveforms[1].sum() == 1_000
    spawned = torch.utils.data.DataLoader(clips, batch_size=4, num_workers=1, multiprocessing_context="spawn")
    assert next(iter(spawned))[1][0] == text  # its class once stood inside a function, and could not be pickled


def test_what_is_not_there_is_named_with_what_is(studio):
    published = studio.publish(policy())
    with pytest.raises(ConfigurationError, match=r"no dataset dmo: did you mean demo\?"):
        datasets.load("dmo", datasets_dir=studio.folder)
    with pytest.raises(ConfigurationError, match=f"no version v9 of demo: there are {published.version}"):
        datasets.load("demo", version="v9", datasets_dir=studio.folder)
    with pytest.raises(ConfigurationError, match="no split 'dev': there are train, valid, test"):
        datasets.load("demo", split="dev", datasets_dir=studio.folder)  # type: ignore[call-overload]
    with pytest.raises(ConfigurationError, match=r"no split 'validation': did you mean valid\?"):
        datasets.load("demo", split="validation", datasets_dir=studio.folder)  # type: ignore[call-overload]
    with pytest.raises(ConfigurationError, match="no kind 'pandas': there are frame, path, torch"):
        datasets.load("demo", kind="pandas", datasets_dir=studio.folder)  # type: ignore[call-overload]


def test_a_split_without_rows_has_no_folder_to_give(studio):
    """A path was given to a folder that was not there, and the trainer said so an hour later."""
    published = studio.publish(policy(splits={"valid": 0.0, "test": 0.25}))
    with pytest.raises(ConfigurationError, match=rf"demo {published.version} has no rows in valid.*: there are train, test"):
        datasets.load("demo", split="valid", kind="path", datasets_dir=studio.folder)
    assert datasets.load("demo", split="test", kind="path", datasets_dir=studio.folder) == published.path / "test"
    assert datasets.load("demo", split="valid", datasets_dir=studio.folder).is_empty()


def test_folders_may_be_text_and_versions_numbers(studio):
    first = studio.publish(policy())
    studio.score({"gen_3": 0.6})
    studio.publish(policy())
    folder = str(studio.folder)
    assert datasets.load("demo", version=1, kind="path", datasets_dir=folder) == first.path
    assert datasets.show_version("demo", 1, datasets_dir=folder)["version"] == first.version
    assert datasets.verify("demo", 2, datasets_dir=folder) == [] and len(datasets.list_versions(datasets_dir=folder)) == 2
    assert datasets.diff("demo", 1, 2, datasets_dir=folder)["generation_id"].to_list() == ["gen_3"]
    with pytest.raises(ConfigurationError, match="no version 3 of demo"):
        datasets.load("demo", version=3, datasets_dir=folder)


def test_versions_are_listed_and_shown(studio):
    published = studio.publish(policy())
    (listed,) = datasets.list_versions(datasets_dir=studio.folder)
    assert listed == {"name": "demo", "version": published.version, "path": str(published.path), "rows": published.rows}
    shown = datasets.show_version("demo", datasets_dir=studio.folder)
    assert shown["lineage"]["policy"]["select"]["min_score"] == 0.5 and shown["size_bytes"] > 10_000


def test_verify_names_each_damage(studio):
    published = studio.publish(policy())
    first, second, *_ = sorted((published.path / "train").glob("*.flac"))
    first.write_bytes(b"other")
    second.unlink()
    (published.path / "train" / "extra.txt").write_text("x")
    told = datasets.verify("demo", datasets_dir=studio.folder)
    assert sorted(problem.split(" ", 1)[1] for problem in told) == ["does not belong here", "is missing", "was changed"]
