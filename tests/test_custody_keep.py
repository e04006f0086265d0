"""A day's audio is taken into custody: each generation ends stored, retrying or quarantined, whatever its file is like."""

import inspect
import json
import re
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import soundfile
import sqlalchemy as sa

from keeptake.audio_store import AudioStore, hash_of
from keeptake.custody import frames, lengths
from keeptake.custody import prove as prove_module
from keeptake.custody.keep import MAX_ATTEMPTS, keep_day, next_delay
from keeptake.custody.policy import FetchPolicy
from keeptake.errors import AudioReason, AudioStatus, BusyError, ConfigurationError
from keeptake.ledger.audio import (
    AudioOutcome,
    count_due,
    list_quarantined,
    pending_audio,
    retry,
    save_outcomes,
)
from keeptake.ledger.connection import Ledger
from keeptake.ledger.status import days_with_failures, pending_by_day
from keeptake.settings import Settings

DAY = "2026-01-02"
CHOSEN = Settings(_env_file=None, workers=2, chunk_rows=32)


def capture(ledger: Ledger, rows: list[dict], root: Path | None) -> None:
    """Put generations into the ledger as capture leaves them."""
    with ledger.begin() as connection:
        for row in rows:
            connection.execute(
                sa.text(
                    "INSERT INTO generations (generation_id, identity_sha256, user_id, user_prompt, audio_url, provider, source,"
                    " captured_on, created_at, audio_root, format, duration_s)"
                    " VALUES (:id, '\\x00', 'u', 'p', :url, 'suno', 'test', :day, now(), :root, :format, :duration_s)"
                ),
                {"format": None, "duration_s": None, **row, "day": DAY, "root": str(root) if root else None},
            )


def rows_of(ledger: Ledger) -> dict[str, sa.Row]:
    with ledger.begin() as connection:
        rows = connection.execute(
            sa.text(
                "SELECT g.*, a.flags AS file_flags, a.duration_s AS measured_s, a.format AS measured_format FROM generations g"
                " LEFT JOIN audio a ON a.sha256 = g.audio_sha256"
            )
        ).all()
    return {row.generation_id: row for row in rows}


@pytest.fixture
def store(tmp_path: Path) -> AudioStore:
    return AudioStore((tmp_path / "audio").as_uri())


@pytest.fixture
def tone(tmp_path: Path, signals) -> Path:
    folder = tmp_path / "takes"
    folder.mkdir()
    soundfile.write(folder / "tone.wav", signals.sine(440, 1.0, 22_050), 22_050)
    return folder


EXPECTED = {
    "x_truncated.mp3": "truncated", "x_zero.mp3": "empty", "x_random.wav": "not-audio", "x_error_page.mp3": "not-audio",
    "x_json_error.wav": "not-audio", "x_lying_header.wav": "truncated", "x_short_header.wav": "truncated",
    "x_garbage_inside.mp3": "undecodable", "x_nan.wav": "non-finite-samples",
}  # fmt: skip
ODD = {
    "x_silence.wav": {"silent"}, "x_near_silence.flac": {"near-silent"}, "x_dc_offset.wav": {"dc-offset"},
    "x_clipped.flac": {"clipping"}, "x_over_one.wav": {"over-full-scale"}, "x_antiphase.mp3": {"antiphase"},
    "x_left_only.mp3": {"one-sided"}, "x_5_1.flac": {"multichannel"}, "x_0_1s.wav": set(), "x_sine_440.wav": set(),
}  # fmt: skip


def test_all_labelled_files_in_one_run(ledger, store, dev_data):
    labels = [json.loads(line) for line in (dev_data / "labels.jsonl").read_text().splitlines()]
    capture(ledger, [{"id": label["file"], "url": label["file"]} for label in labels], dev_data)

    report = keep_day(ledger, DAY, store, CHOSEN)

    assert report.remaining == 0 and report.done == len(labels) - len(EXPECTED)
    rows = rows_of(ledger)
    reasons = {Path(name).name: row.audio_reason for name, row in rows.items() if row.audio_reason}
    assert reasons == EXPECTED
    for name, flags in ODD.items():
        found = set(rows[f"audio/{name}"].file_flags)
        assert flags <= found and found - flags <= {"over-full-scale"}, (name, found)
    for label in labels:
        row = rows[label["file"]]
        if row.audio_status == "stored":
            # The labels count the encoder's delay and padding of an MP3, which players and we leave out: up to 0.08 s.
            allowed_s = max(0.01 * label["duration_s"], 0.08 if label["file"].endswith(".mp3") else 0)
            assert row.measured_s == pytest.approx(label["duration_s"], abs=allowed_s), label["file"]
            assert store.size_bytes(row.audio_sha256) == (dev_data / label["file"]).stat().st_size
    assert rows["audio/x_really_m4a.mp3"].measured_format == "m4a"
    assert rows["audio/x_video.mp4"].measured_format == "mp4"

    assert keep_day(ledger, DAY, store, CHOSEN).done == 0, "a second run did something again"


def test_records_whose_audio_must_be_refused(ledger, store, dev_data):
    lines = (dev_data / "generations.jsonl").read_text().splitlines()
    expected = [json.loads(line) for line in (dev_data / "expected_records.jsonl").read_text().splitlines()]
    refused = [json.loads(lines[entry["line"] - 1]) for entry in expected if entry["expect"] == "audio-refused"]
    assert refused
    capture(ledger, [{"id": record["generationId"], "url": record["audioUrl"]} for record in refused], dev_data)

    keep_day(ledger, DAY, store, CHOSEN)

    assert {row.generation_id: row.audio_reason for row in rows_of(ledger).values()} == {
        "gen_d9026": "not-found", "gen_d9027": "blocked-path", "gen_d9028": "blocked-scheme", "gen_d9029": "blocked-address",
    }  # fmt: skip


def test_claims_are_compared_not_believed(ledger, store, tone):
    capture(
        ledger,
        [
            {"id": "right", "url": "tone.wav", "format": "WAV", "duration_s": 1.0},
            {"id": "wrong", "url": "tone.wav", "format": "mp3", "duration_s": 30.0},
        ],
        tone,
    )
    keep_day(ledger, DAY, store, CHOSEN)

    rows = rows_of(ledger)
    assert rows["right"].flags == [] and rows["right"].status == "audio-ready"
    assert rows["wrong"].flags == ["claimed-duration-differs", "claimed-format-differs"]
    assert rows["wrong"].audio_status == "stored" and rows["wrong"].measured_s == 1.0
    assert rows["wrong"].audio_detail["duration_s"] == {"claimed": 30.0, "measured": 1.0}
    assert rows["right"].audio_sha256 == rows["wrong"].audio_sha256
    with ledger.begin() as connection:
        kept = "SELECT a.codec FROM audio a JOIN generations g ON g.audio_sha256 = a.sha256 WHERE g.generation_id = 'right'"
        assert connection.scalars(sa.text(kept)).all() == ["pcm_16"]


def test_a_failure_keeps_its_evidence(ledger, store, tone):
    (tone / "page.mp3").write_bytes(b"<!DOCTYPE html><html>403</html>")
    capture(ledger, [{"id": "page", "url": "page.mp3"}], tone)
    keep_day(ledger, DAY, store, CHOSEN)

    row = list_quarantined(ledger)[0]
    assert (row.generation_id, row.reason, row.size_bytes, row.first_bytes_type) == ("page", "not-audio", 31, "text/html")
    assert row.attempts == 1 and row.first_attempt_at == row.last_attempt_at and row.next_attempt_at is None
    assert days_with_failures(ledger) == {DAY: {"not-audio": 1}}


def test_retry_of_chosen_rows(ledger, store, tone):
    capture(ledger, [{"id": "a", "url": "a.wav"}, {"id": "b", "url": "b.wav"}, {"id": "page", "url": "/etc/passwd"}], tone)
    keep_day(ledger, DAY, store, CHOSEN)
    assert count_due(ledger, DAY) == 0

    assert retry(ledger, reasons=[AudioReason.NOT_FOUND], dry_run=True) == {"not-found": 2}
    assert count_due(ledger, DAY) == 0, "the dry run changed something"
    assert retry(ledger, reasons=[AudioReason.NOT_FOUND], older_than=timedelta(days=1)) == {}
    assert retry(ledger, generation_ids=["a"]) == {"not-found": 1}
    (tone / "a.wav").write_bytes((tone / "tone.wav").read_bytes())
    assert keep_day(ledger, DAY, store, CHOSEN).done == 1
    rows = rows_of(ledger)
    assert rows["a"].audio_status == "stored" and rows["a"].audio_first_attempt_at < rows["a"].audio_last_attempt_at
    assert rows["b"].audio_reason == "not-found" and rows["page"].audio_reason == "blocked-path"
    with pytest.raises(ConfigurationError, match="choose"):
        retry(ledger)


def test_a_passing_failure_waits_and_is_given_up_in_the_end(ledger, store):
    """Rows are marked as a run against an unreachable server would mark them, time moved by hand."""
    capture(ledger, [{"id": "g", "url": "https://localhost.invalid/a.mp3"}], None)
    policy = FetchPolicy(tries=1)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        assert [row.attempts for row in pending_audio(ledger, DAY)] == [attempt - 1]
        keep_day(ledger, DAY, store, CHOSEN, policy=policy)
        row = rows_of(ledger)["g"]
        assert row.audio_attempts == attempt and row.audio_reason == "server-error"
        if attempt < MAX_ATTEMPTS:
            assert row.audio_status == "retrying" and row.status == "captured"
            wait = row.audio_next_attempt_at - row.audio_last_attempt_at
            assert wait == next_delay(attempt, None)
            assert count_due(ledger, DAY) == 0 and pending_by_day(ledger) == {}, "it is not due yet"
            with ledger.begin() as connection:
                connection.execute(sa.text("UPDATE generations SET audio_next_attempt_at = now()"))
            assert pending_by_day(ledger) == {DAY: 1}
    assert row.audio_status == "quarantined" and row.audio_next_attempt_at is None and count_due(ledger, DAY) == 0


def test_a_row_rests_as_long_as_the_server_asks_and_a_day_at_most():
    assert next_delay(1, 3600.0) == timedelta(hours=1)
    assert next_delay(3, 60.0) == timedelta(minutes=40)
    assert next_delay(1, 1e9) == next_delay(MAX_ATTEMPTS - 1, None) == timedelta(days=1)


def test_an_erased_generation_stays_erased(ledger, store, tone):
    capture(ledger, [{"id": "g", "url": "tone.wav"}], tone)
    pending = pending_audio(ledger, DAY)
    with ledger.begin() as connection:
        connection.execute(sa.text("UPDATE generations SET erased_at = now()"))
    assert pending_audio(ledger, DAY) == []
    late = AudioOutcome(
        pending[0].id, AudioStatus.QUARANTINED, AudioReason.TIMEOUT, {"detail": "late"}, None, (), datetime.now(UTC), None
    )
    with ledger.begin() as connection:
        save_outcomes(connection, [late])
    assert rows_of(ledger)["g"].audio_status == "pending"


def test_a_budget_leaves_the_rest_for_the_next_run(ledger, store, tone):
    capture(ledger, [{"id": f"g{i}", "url": "tone.wav"} for i in range(20)], tone)
    brief = CHOSEN.model_copy(update={"run_budget_s": 1e-3, "chunk_rows": 4})

    first = keep_day(ledger, DAY, store, brief)
    assert 0 < first.done <= 4 and first.remaining == 20 - first.done
    assert keep_day(ledger, DAY, store, CHOSEN).remaining == 0
    assert {row.audio_status for row in rows_of(ledger).values()} == {"stored"}


def test_a_store_that_is_away_blames_no_generation(ledger, tone, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    capture(ledger, [{"id": "g", "url": "tone.wav"}], tone)
    with pytest.raises(Exception, match="file"):
        keep_day(ledger, DAY, AudioStore((tmp_path / "file" / "below").as_uri()), CHOSEN)
    assert rows_of(ledger)["g"].audio_status == "pending"


def test_every_reason_and_flag_is_explained():
    page = (Path(__file__).parent.parent / "docs" / "quarantine.md").read_text()
    for reason in AudioReason:
        assert page.count(f"| `{reason.value}` |") == 1, reason
    flags = re.findall(
        r'"([a-z-]+)"', inspect.getsource(prove_module._Tally.flags) + inspect.getsource(lengths) + inspect.getsource(frames)
    )
    named = {flag for flag in flags if "-" in flag or flag in ("silent", "clipping", "antiphase", "multichannel")}
    for flag in named | {"longer-than-declared", "claimed-duration-differs", "claimed-format-differs"}:
        assert f"`{flag}`" in page, flag


KILLER = """
import os, signal
from keeptake.custody.prove import prove as really_prove
def prove(path):
    if path.read_bytes().startswith(b"RIFFkill"):
        os.kill(os.getpid(), signal.SIGSEGV)
    return really_prove(path)
"""


def test_a_file_that_kills_its_worker_is_isolated(ledger, store, tone, tmp_path, monkeypatch):
    """A decoder that dies of one file once failed every file of its batch."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "keeptake_test_killer.py").write_text(KILLER)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    import keeptake_test_killer

    monkeypatch.setattr("keeptake.custody.keep.prove", keeptake_test_killer.prove)
    (tone / "killer.wav").write_bytes(b"RIFFkill" + bytes(100))
    urls = ["killer.wav" if number in (3, 7) else "tone.wav" for number in range(12)]
    capture(ledger, [{"id": f"g{number}", "url": url} for number, url in enumerate(urls)], tone)

    report = keep_day(ledger, DAY, store, CHOSEN)

    assert report.done == 10 and report.failed == {"crashed-worker": 2}
    assert {row.generation_id for row in rows_of(ledger).values() if row.audio_reason == "crashed-worker"} == {"g3", "g7"}


RUN = """
import sys
from keeptake.audio_store import AudioStore, hash_of
from keeptake.custody.keep import keep_day
from keeptake.ledger.connection import Ledger
from keeptake.settings import Settings
print("started", flush=True)
keep_day(Ledger(sys.argv[1]), sys.argv[2], AudioStore(sys.argv[3]), Settings(_env_file=None, workers=2, chunk_rows=4))
"""


def test_a_run_killed_at_any_point_leaves_no_row_without_its_object(ledger, store, tmp_path, signals):
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(40):
        soundfile.write(folder / f"{number}.wav", signals.white_noise(2.0, 44_100, seed=number), 44_100)
    capture(ledger, [{"id": f"g{number}", "url": f"{number}.wav"} for number in range(40)], folder)
    cuts = []
    for at_least, delay_s in ((1, 0.0), (9, 0.02)):
        wait_until_unclaimed(ledger)
        with subprocess.Popen([sys.executable, "-c", RUN, ledger.url, DAY, store.url], stdout=subprocess.PIPE) as run:
            assert run.stdout is not None and run.stdout.readline()
            while sum(row.audio_status == "stored" for row in rows_of(ledger).values()) < at_least:
                time.sleep(0.005)
            time.sleep(delay_s)
            run.kill()
        stored = [row for row in rows_of(ledger).values() if row.audio_status == "stored"]
        cuts.append(len(stored))
        for row in stored:
            assert store.read(row.audio_sha256), "a row names an object that is missing"
    for path in (store.folder / "sha256").glob("*/*"):
        if len(path.name) == 64:
            assert hash_of(path) == path.name
    wait_until_unclaimed(ledger)

    assert keep_day(ledger, DAY, store, CHOSEN).remaining == 0
    rows = rows_of(ledger).values()
    assert {row.audio_status for row in rows} == {"stored"} and len({row.audio_sha256 for row in rows}) == 40
    assert any(0 < count < 40 for count in cuts), f"no kill fell into the work, the test showed nothing: {cuts}"


def wait_until_unclaimed(ledger: Ledger) -> None:
    """Postgres notices a killed session within moments; the claim of the day goes with it."""
    for _ in range(100):
        try:
            with ledger.claim(f"audio of {DAY}"):
                return
        except BusyError:
            time.sleep(0.1)
    raise AssertionError("the claim of a killed run stayed")
