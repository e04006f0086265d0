"""Snapshots of capture days: what they hold, and when they are no longer true."""

from hashlib import sha256

import polars as pl
import pytest
import sqlalchemy as sa

from keeptake.ledger.bulk import upsert
from keeptake.ledger.scores import score_lagging
from keeptake.ledger.tables import audio, features, generations
from keeptake.warehouse import outdated_snapshots, write_snapshot

DAYS = ("2026-11-01", "2026-11-02", "2026-11-02")


@pytest.fixture
def takes(ledger):
    """Three scored takes of two days."""
    digests = [f"{number:064x}" for number in range(len(DAYS))]
    shape = {"size_bytes": 9, "format": "wav", "codec": "pcm", "duration_s": 20.0, "sample_rate_hz": 44_100, "channels": 2}
    with ledger.begin() as connection:
        upsert(connection, audio, [{"sha256": d, "storage_key": "k", **shape} for d in digests], conflict=("sha256",))
        heard = [{"audio_sha256": d, "tempo_bpm": 110.0, "duration_s": 20.0, "versions": "rhythm=1"} for d in digests]
        upsert(connection, features, heard, conflict=("audio_sha256",))
        taken = [
            {
                "generation_id": f"g{number}",
                "identity_sha256": sha256(str(number).encode()).digest(),
                "user_id": "someone",
                "user_prompt": "a secret wish",
                "audio_url": "a.wav",
                "provider": "suno",
                "source": "api",
                "captured_on": day,
                "created_at": f"{day}T12:00:00Z",
                "status": "embedded",
                "audio_status": "stored",
                "audio_sha256": digests[number],
            }
            for number, day in enumerate(DAYS)
        ]
        upsert(connection, generations, taken, conflict=("generation_id",))
    score_lagging(ledger)
    return ledger


@pytest.fixture
def written(takes, tmp_path):
    for day in sorted(set(DAYS)):
        write_snapshot(takes, day, tmp_path)
    return tmp_path


def change(ledger, statement):
    with ledger.begin() as connection:
        connection.execute(sa.text(statement))


def test_a_snapshot_holds_the_days_takes_and_nothing_personal(takes, written):
    frame = pl.read_parquet(written / "captured_on=2026-11-02" / "takes.parquet")
    assert frame["generation_id"].to_list() == ["g1", "g2"]
    assert frame["tempo_bpm"].to_list() == [110.0, 110.0]
    assert not {"user_id", "user_prompt", "ai_enhanced_prompt"} & set(frame.columns)
    assert "secret" not in str(frame.to_dicts())


def test_days_without_a_snapshot_are_asked_for_newest_first_and_written_ones_are_not(takes, tmp_path):
    assert outdated_snapshots(takes, tmp_path) == ["2026-11-02", "2026-11-01"]
    write_snapshot(takes, "2026-11-02", tmp_path)
    assert outdated_snapshots(takes, tmp_path) == ["2026-11-01"]


def test_feedback_moves_the_snapshot_of_its_day(takes, written):
    """New scores were in the snapshot of an older day only once somebody ran that day again."""
    change(takes, "UPDATE generations SET liked = true, feedback_revision = feedback_revision + 1 WHERE generation_id = 'g0'")
    assert outdated_snapshots(takes, written) == []  # not scored yet
    score_lagging(takes)
    assert outdated_snapshots(takes, written) == ["2026-11-01"]
    before = pl.read_parquet(written / "captured_on=2026-11-01" / "takes.parquet")["quality_score"].item()
    _, frame = write_snapshot(takes, "2026-11-01", written)
    assert frame["quality_score"].item() > before
    assert outdated_snapshots(takes, written) == []


@pytest.mark.parametrize(("erased", "left"), [("'g1'", 1), ("'g1', 'g2'", 0)])
def test_erased_takes_leave_the_snapshot(takes, written, erased, left):
    """They stayed on disk for anyone's DuckDB."""
    change(takes, f"UPDATE generations SET erased_at = now() WHERE generation_id IN ({erased})")
    assert outdated_snapshots(takes, written) == ["2026-11-02"]
    assert write_snapshot(takes, "2026-11-02", written)[1].height == left
    assert outdated_snapshots(takes, written) == []


def test_a_snapshot_that_is_cut_off_or_of_an_older_release_is_written_anew(takes, written):
    path = written / "captured_on=2026-11-01" / "takes.parquet"
    path.write_bytes(path.read_bytes()[:100])
    pl.DataFrame({"generation_id": ["g1"]}).write_parquet(written / "captured_on=2026-11-02" / "takes.parquet")
    (written / "captured_on=somewhen").mkdir()
    assert outdated_snapshots(takes, written) == ["2026-11-02", "2026-11-01"]


def test_publication_leaves_snapshots_as_they_are(takes, written):
    change(takes, "UPDATE generations SET used_for_training = true, updated_at = now()")
    assert outdated_snapshots(takes, written) == []
