"""A stage over a day: killed, repeated, at once, with a file that cannot be heard."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import soundfile
import sqlalchemy as sa

from keeptake.audio.analyze import PART_VERSIONS
from keeptake.audio_store import AudioStore
from keeptake.compute import Pool
from keeptake.embedding import DEFAULT_MODEL
from keeptake.embedding.files import vector_of_file
from keeptake.embedding.models import MusicnnEmbedder, version_of
from keeptake.embedding.musicnn import Musicnn
from keeptake.errors import AudioReason, UnavailableError
from keeptake.fingerprinting import fingerprint_day, prepare_fingerprinting
from keeptake.ledger.analyses import mark_unhearable, versions_text
from keeptake.ledger.audio import list_quarantined, retry
from keeptake.ledger.bulk import upsert
from keeptake.ledger.duplicates import audio_to_fingerprint
from keeptake.ledger.scores import count_lagging, score_lagging
from keeptake.ledger.status import pending_by_day
from keeptake.ledger.tables import audio, generations
from keeptake.ledger.vectors import audio_to_embed
from keeptake.model_store import ModelStore
from keeptake.stage import Limits
from keeptake.stages import embed_day, hear_day, prepare_hearing, prepare_opening

DAY = "2026-11-01"
FILES = 24
CHUNK = 4
LIMITS = Limits(budget_s=300, chunk_rows=CHUNK, item_cpu_s=60, item_memory_mb=2048)

# Lives in a folder of its own because workers import it by name; every call of the analyzer leaves a line.
COUNTED = """
import functools, os, sys, time
from pathlib import Path
from keeptake import stages
from keeptake.audio_store import AudioStore
from keeptake.compute import Pool
from keeptake.ledger.connection import Ledger
from keeptake.stage import Limits

def prepare(url):
    stages._worker = stages._Worker(AudioStore(url))

def listen(calls, poison, item):
    with open(calls, "a") as file:
        file.write(item.sha256 + " " + " ".join(item.parts) + "\\n")
    if item.sha256 == poison:
        os.kill(os.getpid(), 9)
    return stages.hear_one(item)

def run(url, store, calls, chunk, workers, poison=""):
    pool = Pool(workers, initializer=functools.partial(prepare, store))
    limits = Limits(budget_s=300, chunk_rows=chunk, item_cpu_s=60, item_memory_mb=2048)
    ledger = Ledger(url)
    report = stages.hear_day(ledger, "2026-11-01", pool, limits, listen=functools.partial(listen, calls, poison))
    ledger.dispose()
    return report

def main():
    report = run(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), 2, *sys.argv[5:])
    print(report.done, dict(report.failed), report.remaining)

def raise_version(part):
    from keeptake.audio import analyze
    analyze.PART_VERSIONS[part] = "raised"

def prepare_raised(part, url, models):
    raise_version(part)
    prepare(url)

def backfill():
    import dagster as dg
    from assets import analyzed_features as asset
    from resources import audio_store, compute, ledger
    url, store, calls, part = sys.argv[1:5]
    raise_version(part)
    asset.prepare_hearing = functools.partial(prepare_raised, part)
    stages.hear_one = functools.partial(listen, calls, "")
    resources = {
        "ledger": ledger.LedgerResource(url=url),
        "audio_store": audio_store.AudioStoreResource(url=store),
        "compute": compute.ComputeResource(workers=2),
    }
    done = dg.materialize([asset.analyzed_features], resources=resources, partition_key="2026-11-01")
    print(done.asset_materializations_for_node("analyzed_features")[0].metadata["analyzed"].value)
"""


@pytest.fixture(scope="module")
def clicks(tmp_path_factory, signals):
    """A store with click tracks, and the module that counts what is heard."""
    folder = tmp_path_factory.mktemp("clicks")
    store = AudioStore((folder / "audio").as_uri())
    files = []
    for number in range(FILES):
        path = folder / f"{number}.wav"
        soundfile.write(path, signals.click_track(80 + number, 4, 22_050), 22_050)
        files.append(store.put(path))
        path.unlink()
    (folder / "counted.py").write_text(COUNTED)
    return folder, store, files


@pytest.fixture
def day(ledger, clicks):
    """A ledger with a generation for every click track, its audio in custody."""
    _, _, files = clicks
    with ledger.begin() as connection:
        upsert(
            connection,
            audio,
            [
                {
                    "sha256": file.sha256,
                    "storage_key": file.key,
                    "size_bytes": file.size_bytes,
                    "format": "wav",
                    "codec": "pcm",
                    "duration_s": 4.0,
                    "sample_rate_hz": 22_050,
                    "channels": 1,
                }
                for file in files
            ],
            conflict=("sha256",),
        )
        upsert(
            connection,
            generations,
            [
                {
                    "generation_id": f"g{number}",
                    "identity_sha256": sha256(str(number).encode()).digest(),
                    "user_id": "u",
                    "user_prompt": "clicks",
                    "audio_url": "clicks.wav",
                    "provider": "suno",
                    "source": "test",
                    "captured_on": DAY,
                    "created_at": "2026-11-01T00:00:00Z",
                    "status": "audio-ready",
                    "audio_status": "stored",
                    "audio_sha256": file.sha256,
                }
                for number, file in enumerate(files)
            ],
            conflict=("generation_id",),
        )
    return ledger


def start(day, clicks, calls: Path, *, chunk: int = CHUNK, poison: str = "") -> subprocess.Popen[str]:
    return counted("main", clicks, day.url, str(calls), str(chunk), poison)


def backfill(day, clicks, calls: Path, part: str) -> subprocess.Popen[str]:
    """Materialize the day's asset under a raised version of one part, as a backfill of the day does."""
    return counted("backfill", clicks, day.url, str(calls), part, KEEPTAKE_HOME=str(calls.parent), KEEPTAKE_CHUNK_ROWS=str(CHUNK))


def counted(function: str, clicks, url: str, *arguments: str, **settings: str) -> subprocess.Popen[str]:
    folder, store, _ = clicks
    command = [sys.executable, "-c", f"import counted; counted.{function}()", url, store.url, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(folder), **settings}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)


def heard(calls: Path) -> int:
    return len(calls.read_text().splitlines()) if calls.exists() else 0


def analyzed(day) -> int:
    with day.begin() as connection:
        return connection.scalar(sa.text("SELECT count(*) FROM features"))


def kill_after(day, clicks, calls: Path, more: int, *, chunk: int = CHUNK) -> None:
    """Start a run and kill it, workers and all, when it has heard so many more files."""
    kill_when(start(day, clicks, calls, chunk=chunk), calls, heard(calls) + more)


def kill_when(run: subprocess.Popen[str], calls: Path, target: int) -> None:
    while heard(calls) < target and run.poll() is None:
        time.sleep(0.005)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()


def finish(day, clicks, calls: Path, **options) -> str:
    run = start(day, clicks, calls, **options)
    output, _ = run.communicate(timeout=240)
    assert run.returncode == 0
    return output.strip()


# With two workers, a kill loses the open chunk and the two files at hand.
LOST_A_KILL = CHUNK + 2


def test_a_killed_run_hears_nothing_committed_twice(day, clicks, tmp_path):
    """A run killed in its third chunk once re-heard the whole day: chunks were committed at the end."""
    calls = tmp_path / "calls"
    kills = (6, 3, 7)
    for more in kills:
        kill_after(day, clicks, calls, more)
    finish(day, clicks, calls)
    assert analyzed(day) == FILES
    assert heard(calls) <= FILES + len(kills) * LOST_A_KILL
    assert finish(day, clicks, calls).startswith("0 ")


def test_control_without_chunk_commits_a_killed_run_loses_everything(day, clicks, tmp_path):
    calls = tmp_path / "calls"
    kill_after(day, clicks, calls, 18, chunk=10_000)
    assert analyzed(day) == 0
    finish(day, clicks, calls, chunk=10_000)
    assert heard(calls) > FILES + LOST_A_KILL


def test_two_runs_of_one_day_do_not_both_hear_it(day, clicks, tmp_path):
    """Two runs at once once heard 704 of 1,000 files twice."""
    calls = tmp_path / "calls"
    runs = [start(day, clicks, calls) for _ in range(2)]
    outputs = [run.communicate(timeout=240)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert heard(calls) == FILES
    assert sorted(output.split()[0] for output in outputs) == ["0", str(FILES)]


def test_a_file_that_kills_its_worker_is_marked_and_the_others_finish(day, clicks, tmp_path):
    _, _, files = clicks
    assert finish(day, clicks, tmp_path / "calls", poison=files[5].sha256) == f"{FILES - 1} {{'crashed-worker': 1}} 0"
    with day.begin() as connection:
        row = connection.execute(
            sa.text("SELECT status, status_reason FROM generations WHERE audio_sha256 = :sha256"), {"sha256": files[5].sha256}
        ).one()
    assert tuple(row) == ("quarantined", "crashed-worker")
    assert analyzed(day) == FILES - 1


def test_only_a_stale_part_is_done_again(day, clicks, tmp_path):
    finish(day, clicks, tmp_path / "calls")
    with day.begin() as connection:
        connection.execute(sa.text("UPDATE analyses SET version = 'old' WHERE part = 'tonal'"))
        connection.execute(sa.text("UPDATE features SET versions = 'old', key = 'H major'"))
        before = dict(connection.execute(sa.text("SELECT part, max(analyzed_at) FROM analyses GROUP BY 1")).all())
    finish(day, clicks, tmp_path / "calls")
    with day.begin() as connection:
        after = dict(connection.execute(sa.text("SELECT part, max(analyzed_at) FROM analyses GROUP BY 1")).all())
        versions = connection.scalars(sa.text("SELECT DISTINCT versions FROM features")).all()
        assert connection.scalar(sa.text("SELECT count(*) FROM features WHERE key = 'H major'")) == 0
        assert connection.scalar(sa.text("SELECT count(*) FROM features WHERE tempo_bpm IS NOT NULL")) == FILES
    assert versions == [versions_text(PART_VERSIONS)]
    assert {part for part in after if after[part] != before[part]} == {"tonal"}


def test_an_interrupted_backfill_of_a_raised_part_goes_on_where_it_was_and_touches_no_other(day, clicks, tmp_path):
    """A killed re-hearing must not begin anew, and must not hear the other parts: of 10,000 takes that is hours."""
    finish(day, clicks, tmp_path / "first")
    before, calls = parts_of(day), tmp_path / "calls"

    kill_when(backfill(day, clicks, calls, "tonal"), calls, 10)
    half_way = {part: raised for part, (raised, _) in parts_of(day).items()}
    assert 0 < half_way["tonal"] < FILES
    output, _ = backfill(day, clicks, calls, "tonal").communicate(timeout=240)

    assert int(output) == FILES - half_way["tonal"]
    assert {line.split(" ", 1)[1] for line in calls.read_text().splitlines()} == {"tonal"}
    assert heard(calls) <= FILES + LOST_A_KILL
    after = parts_of(day)
    assert after.pop("tonal")[0] == FILES
    assert after == {part: found for part, found in before.items() if part != "tonal"}


def parts_of(day) -> dict[str, tuple[int, object]]:
    """Of each part: how many analyses have the raised version, and when the last was made."""
    query = "SELECT part, count(*) FILTER (WHERE version = 'raised'), max(analyzed_at) FROM analyses GROUP BY 1"
    with day.begin() as connection:
        return {part: (raised, last) for part, raised, last in connection.execute(sa.text(query))}


def test_control_without_chunk_commits_an_interrupted_backfill_begins_anew(day, clicks, tmp_path, monkeypatch):
    finish(day, clicks, tmp_path / "first")
    monkeypatch.setitem(globals(), "CHUNK", 10_000)
    kill_when(backfill(day, clicks, tmp_path / "calls", "tonal"), tmp_path / "calls", 18)
    assert parts_of(day)["tonal"][0] == 0


def never() -> None:
    raise AssertionError("no worker was to be started")


def test_hearing_places_what_it_hears_out_of_the_same_pass(day, clicks, tmp_path):
    """Each take went through the network of its style once more to be placed."""
    _, store, files = clicks
    pool = Pool(2, initializer=partial(prepare_hearing, store.url, tmp_path))
    assert hear_day(day, DAY, pool, LIMITS).done == FILES
    space = {"model": DEFAULT_MODEL, "version": version_of(DEFAULT_MODEL)}
    assert embed_day(day, DAY, Pool(2, initializer=never), LIMITS, **space).done == FILES
    assert embed_day(day, DAY, Pool(2, initializer=never), LIMITS, **space).done == 0
    with day.begin() as connection:
        vector = connection.scalar(sa.text("SELECT vector FROM embeddings WHERE audio_sha256 = :sha"), {"sha": files[3].sha256})
        assert connection.scalar(sa.text("SELECT count(*) FROM generations WHERE status = 'embedded'")) == FILES
    with store.as_file(files[3].sha256) as path:
        np.testing.assert_allclose(vector, vector_of_file(path, tmp_path), rtol=1e-4, atol=1e-4)


class InBatches:
    """The default embedder, as on a GPU: in half precision by torch, many takes at once, here on the CPU."""

    sample_rate_hz = 16_000

    def __init__(self, models: Path) -> None:
        self._embedder = MusicnnEmbedder(Musicnn.load(ModelStore(models), "MSD"), torch_device="cpu")
        self.batches: list[int] = []

    def embed(self, mono):
        self.batches.append(len(mono))
        return self._embedder.embed(mono)


def test_a_store_that_is_away_ends_the_stage_and_blames_no_take(day, clicks, tmp_path, monkeypatch):
    """Every take of a day whose store was away was quarantined as one that kills its worker, for good."""
    _, store, _ = clicks
    for name, value in {
        "ACCESS_KEY_ID": "a",
        "SECRET_ACCESS_KEY": "b",
        "REGION": "c",
        "ENDPOINT_URL": "http://127.0.0.1:1",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    away = partial(prepare_hearing, "s3://bucket/audio", tmp_path)
    with pytest.raises(UnavailableError, match=r"audio store s3://bucket/audio .*then repeat"):
        hear_day(day, DAY, Pool(2, initializer=away), LIMITS)
    assert waiting(day) == FILES

    pool = Pool(2, initializer=partial(prepare_hearing, store.url, tmp_path))
    assert hear_day(day, DAY, pool, LIMITS).done == FILES


def test_a_lost_object_is_named_and_heard_when_it_is_back(day, clicks, tmp_path):
    """It was called one that kills its worker, and no command could let it be heard again."""
    _, store, files = clicks
    lost, at = files[2].sha256, Path(store.url.removeprefix("file://")) / files[2].key
    pool = Pool(2, initializer=partial(prepare_hearing, store.url, tmp_path))
    at.rename(tmp_path / "away")
    try:
        report = hear_day(day, DAY, pool, LIMITS)
        assert (report.done, report.failed) == (FILES - 1, {"damaged-object": 1})
        (row,) = list_quarantined(day)
        assert (row.generation_id, row.reason) == ("g2", "damaged-object")
        assert retry(day, reasons=[AudioReason.DAMAGED_OBJECT], is_sound=store.is_sound, dry_run=True) == {"damaged-object": 1}
    finally:
        (tmp_path / "away").rename(at)

    assert retry(day, generation_ids=["g2"], is_sound=store.is_sound) == {"damaged-object": 1}
    assert list_quarantined(day) == [] and pending_by_day(day) == {DAY: FILES}
    assert hear_day(day, DAY, pool, LIMITS).done == 1
    with day.begin() as connection:
        assert connection.scalar(sa.text("SELECT status FROM generations WHERE audio_sha256 = :sha"), {"sha": lost}) == "analyzed"


def test_what_the_store_has_lost_for_good_is_fetched_again(day, clicks):
    _, _, files = clicks
    with day.begin() as connection:
        mark_unhearable(connection, files[2].sha256, "damaged-object")
    assert retry(day, generation_ids=["g2"], is_sound=lambda sha256: False) == {"damaged-object": 1}
    with day.begin() as connection:
        row = connection.execute(
            sa.text("SELECT status, audio_status, audio_sha256, audio_detail FROM generations WHERE generation_id = 'g2'")
        ).one()
    assert tuple(row) == ("captured", "pending", None, {"previous_reason": "damaged-object"})


def test_no_fingerprint_is_made_up_for_what_the_store_does_not_give(day, clicks, tmp_path, monkeypatch):
    """An empty one made the take a copy of nothing for good, so that its copies passed."""
    _, store, files = clicks
    at = Path(store.url.removeprefix("file://")) / files[2].key
    at.rename(tmp_path / "away")
    try:
        report = fingerprint_day(day, DAY, Pool(2, initializer=partial(prepare_fingerprinting, store.url)), LIMITS)
    finally:
        (tmp_path / "away").rename(at)
    assert (report.done, report.failed) == (FILES - 1, {"damaged-object": 1})
    assert [item.sha256 for item in audio_to_fingerprint(day, DAY)] == [files[2].sha256]


def waiting(day) -> int:
    with day.begin() as connection:
        return connection.scalar(
            sa.text(
                "SELECT count(*) FROM generations JOIN audio ON sha256 = audio_sha256"
                " WHERE status = 'audio-ready' AND status_reason IS NULL AND analysis_reason IS NULL"
            )
        )


def test_an_embedder_for_many_takes_at_once_gets_a_chunk_of_opened_files(day, clicks, tmp_path):
    _, store, files = clicks
    finish(day, clicks, tmp_path / "calls")
    poison = Path(store.url.removeprefix("file://")) / files[7].key
    poison.rename(tmp_path / "away")
    space = {"model": DEFAULT_MODEL, "version": version_of(DEFAULT_MODEL)}
    embedder = InBatches(tmp_path)
    pool = Pool(2, initializer=partial(prepare_opening, store.url))
    try:
        report = embed_day(day, DAY, pool, LIMITS, **space, load_here=lambda: embedder)
    finally:
        (tmp_path / "away").rename(poison)

    assert (report.done, report.failed.total(), report.remaining) == (FILES - 1, 1, 0)
    assert embedder.batches == [CHUNK] * ((FILES - 1) // CHUNK) + [(FILES - 1) % CHUNK]
    with day.begin() as connection:
        placed = dict(connection.execute(sa.text("SELECT audio_sha256, vector FROM embeddings")).all())
    for file in (files[0], files[-1]):
        with store.as_file(file.sha256) as path:
            alone = vector_of_file(path, tmp_path)
        assert 1 - np.dot(placed[file.sha256], alone) / np.linalg.norm(placed[file.sha256]) / np.linalg.norm(alone) < 1e-3


def test_nothing_to_place_loads_no_embedder(day, tmp_path):
    space = {"model": DEFAULT_MODEL, "version": version_of(DEFAULT_MODEL)}
    assert embed_day(day, DAY, Pool(2, initializer=never), LIMITS, **space, load_here=never).done == 0


def test_control_what_was_heard_without_networks_waits_to_be_placed(day, clicks, tmp_path):
    finish(day, clicks, tmp_path / "calls")
    assert len(audio_to_embed(day, DAY, DEFAULT_MODEL, version_of(DEFAULT_MODEL))) == FILES


def test_a_take_with_known_audio_moves_on_without_work(day, clicks, tmp_path):
    calls = tmp_path / "calls"
    finish(day, clicks, calls)
    with day.begin() as connection:
        connection.execute(sa.text("UPDATE generations SET status = 'audio-ready' WHERE generation_id = 'g3'"))
    finish(day, clicks, calls)
    assert heard(calls) == FILES
    with day.begin() as connection:
        assert connection.scalar(sa.text("SELECT status FROM generations WHERE generation_id = 'g3'")) == "analyzed"


def test_a_time_budget_commits_what_it_has_and_says_what_remains(day):
    report = hear_day(day, DAY, Pool(1), Limits(budget_s=0.0, chunk_rows=CHUNK, item_cpu_s=60, item_memory_mb=2048))
    assert (report.done, report.remaining) == (0, FILES)
    assert pending_by_day(day) == {DAY: FILES}


def test_scores_follow_analysis_and_feedback(day, clicks, tmp_path):
    finish(day, clicks, tmp_path / "calls")
    assert score_lagging(day).scored == FILES
    assert score_lagging(day).scored == 0
    with day.begin() as connection:
        connection.execute(
            sa.text("UPDATE generations SET liked = true, feedback_revision = feedback_revision + 1 WHERE generation_id = 'g1'")
        )
    assert count_lagging(day) == 1
    before = total(day, "g1")
    assert score_lagging(day).scored == 1
    assert total(day, "g1") == pytest.approx(before + 0.2)
    with day.begin() as connection:
        terms = connection.scalar(
            sa.text(
                "SELECT terms FROM quality_scores q JOIN generations g ON g.id = q.generation"
                " WHERE formula = 'seed_v1' AND generation_id = 'g1'"
            )
        )
    assert json.loads(json.dumps(terms))["liked"] == 0.2


def total(day, generation_id: str) -> float:
    with day.begin() as connection:
        return connection.scalar(
            sa.text("SELECT quality_score FROM generations WHERE generation_id = :id"), {"id": generation_id}
        )
