"""Fingerprints and pairs in a real ledger: stored once, compared once, in portions, with their evidence."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from threading import Event, Timer

import numpy as np
import pytest
import soundfile
import sqlalchemy as sa

from keeptake.audio.fingerprint import FINGERPRINT_VERSION, code_words, rotate
from keeptake.audio_store import AudioStore
from keeptake.compute import Pool
from keeptake.curation.duplicates import DUPLICATES_VERSION
from keeptake.errors import BusyError
from keeptake.fingerprinting import fingerprint_day, prepare_fingerprinting
from keeptake.ledger import duplicates
from keeptake.ledger.bulk import upsert
from keeptake.ledger.datasets import duplicate_audio, excerpt_audio
from keeptake.ledger.duplicates import (
    PAIRS_VERSION,
    Fingerprinted,
    audio_to_fingerprint,
    compare_new,
    duplicate_groups,
    pairs_table,
    save_fingerprints,
)
from keeptake.ledger.tables import audio, duplicate_pairs, fingerprints, generations
from keeptake.stage import Limits

DAY = "2026-11-01"


def take(seed, frames=200):
    rng = np.random.default_rng(seed)
    onsets = rng.random((frames, 24)) < 0.03
    level = np.zeros((frames, 24), np.float32)
    for t in range(1, frames):
        level[t] = 0.8 * level[t - 1] + onsets[t] * (0.5 + rng.random(24))
    return code_words((1 + level + 0.6 * np.roll(level, 1, axis=1) + 0.05 * rng.random(level.shape)).astype(np.float32))


def name(number):
    return f"{number:064x}"


def file_row(digest, key="k"):
    shape = {"duration_s": 20.0, "sample_rate_hz": 44_100, "channels": 2}
    return {"sha256": digest, "storage_key": key, "size_bytes": 9, "format": "wav", "codec": "pcm", **shape}


def generation_row(number, digest):
    return {
        "generation_id": f"g{number}",
        "identity_sha256": sha256(str(number).encode()).digest(),
        "user_id": "u",
        "user_prompt": "p",
        "audio_url": "a.wav",
        "provider": "suno",
        "source": "test",
        "captured_on": DAY,
        "created_at": f"{DAY}T00:00:00Z",
        "status": "audio-ready",
        "audio_status": "stored",
        "audio_sha256": digest,
    }


def fill(ledger, takes):
    """Store fingerprints of takes by number."""
    with ledger.begin() as connection:
        upsert(connection, audio, [file_row(name(number)) for number in takes], conflict=("sha256",))
        rows = [generation_row(number, name(number)) for number in takes]
        upsert(connection, generations, rows, conflict=("generation_id",))
        save_fingerprints(connection, [Fingerprinted(name(number), codes) for number, codes in takes.items()])


def found_pairs(ledger):
    with ledger.begin() as connection:
        rows = connection.execute(sa.select(duplicate_pairs)).all()
    return {(int(row.first_sha256, 16), int(row.second_sha256, 16)): row.evidence for row in rows}


def test_copies_are_stored_with_their_evidence_and_compared_once(ledger):
    fill(ledger, {1: take(1), 2: rotate(take(1)[30:], 2), 3: take(2)})

    assert compare_new(ledger) == (3, 1, 0, 0)
    assert compare_new(ledger) == (0, 0, 0, 0)

    (evidence,) = found_pairs(ledger).values()
    assert evidence["relation"] == "duplicate"
    assert (evidence["offset_s"], evidence["rotation"], evidence["speed"], evidence["bit_error"]) == (-3.0, 1.0, 1.0, 0.0)
    assert {"matched_s", "share", "cosine"} < evidence.keys()
    (group,) = duplicate_groups(ledger)
    assert group.members == (name(1), name(2))
    shown = pairs_table(ledger).row(0, named=True)
    assert (shown["first"], shown["second"], shown["rotation"]) == ("g1", "g2", 1.0)


@pytest.mark.parametrize("portion", [1, 2, 3, 50])
def test_new_takes_meet_every_stored_one_whatever_the_portions(ledger, monkeypatch, portion):
    monkeypatch.setattr(duplicates, "PORTION_WORDS", portion * len(take(1)))
    fill(ledger, {number: take(number) for number in range(1, 6)})
    assert compare_new(ledger).duplicates == 0
    fill(ledger, {11: take(1), 14: take(4), 15: take(5)[20:], 16: take(16), 21: take(1)})

    assert compare_new(ledger).compared == 5

    assert set(found_pairs(ledger)) == {(1, 11), (1, 21), (11, 21), (4, 14), (5, 15)}


def test_control_takes_marked_as_compared_unseen_are_missed(ledger):
    fill(ledger, {1: take(1), 2: take(1)})
    with ledger.begin() as connection:
        connection.execute(sa.update(fingerprints).values(compared_by=DUPLICATES_VERSION))

    assert compare_new(ledger) == (0, 0, 0, 0)
    assert found_pairs(ledger) == {}


def test_new_rules_compare_everything_again(ledger, monkeypatch):
    """After an upgrade the pairs of the older rules stayed: curation left takes out by them, and the UI showed none."""
    fill(ledger, {1: take(1), 2: take(1), 3: take(3)})
    with monkeypatch.context() as older:
        older.setattr(duplicates, "DUPLICATES_VERSION", "older")
        older.setattr(duplicates, "PAIRS_VERSION", "older pairs")
        assert compare_new(ledger) == (3, 1, 0, 0)
        assert compare_new(ledger) == (0, 0, 0, 0)
    assert duplicate_groups(ledger) == []

    assert compare_new(ledger) == (3, 1, 0, 0)
    assert [group.members for group in duplicate_groups(ledger)] == [(name(1), name(2))]
    with ledger.begin() as connection:
        assert connection.scalars(sa.select(duplicate_pairs.c.version)).all() == [PAIRS_VERSION]


def test_a_comparison_killed_before_its_commit_is_repeated(ledger, monkeypatch):
    fill(ledger, {1: take(1), 2: take(1)})

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(duplicates, "_store", die)
        compare_new(ledger)

    assert found_pairs(ledger) == {}
    assert compare_new(ledger) == (2, 1, 0, 0)


def test_only_one_comparison_at_a_time(ledger):
    with ledger.claim("comparing fingerprints"), pytest.raises(BusyError):
        compare_new(ledger)


def test_the_comparison_of_another_day_is_waited_for(ledger):
    """Runs of two days at once: the second failed, and somebody was told, for each comparison that took longer than no time."""
    fill(ledger, {1: take(1), 2: take(1)})
    held, freed = Event(), Event()

    def hold() -> None:
        with ledger.claim("comparing fingerprints"):
            held.set()
            freed.wait(10)

    with ThreadPoolExecutor() as threads:
        other = threads.submit(hold)
        assert held.wait(10)
        Timer(0.3, freed.set).start()
        assert compare_new(ledger, wait_s=10) == (2, 1, 0, 0)
        other.result()


def test_a_medley_and_its_excerpts_are_kept_apart_from_duplicates(ledger):
    """Curation drops all but one of each group of duplicates: a medley must not take its parts with it."""
    fill(ledger, {1: take(1), 2: take(2), 3: take(3), 4: np.concatenate([take(1), take(2), take(3)]), 5: take(1)})

    report = compare_new(ledger)

    assert report == (5, 1, 4, 0)
    assert duplicate_audio(ledger).rows() == [(name(1), name(5))]
    assert set(excerpt_audio(ledger).rows()) == {tuple(sorted((name(n), name(4)))) for n in (1, 2, 3, 5)}
    assert [group.members for group in duplicate_groups(ledger)] == [(name(1), name(5))]


def test_pairs_of_older_rules_go_when_both_were_compared_again(ledger):
    fill(ledger, {1: take(1), 2: take(2), 3: take(3)})
    old = [{"first_sha256": name(1), "second_sha256": name(2), "version": "old", "evidence": {"relation": "duplicate"}}]
    with ledger.begin() as connection:
        upsert(connection, duplicate_pairs, old, conflict=("first_sha256", "second_sha256", "version"))
    assert found_pairs(ledger)

    compare_new(ledger)

    assert found_pairs(ledger) == {}


def test_a_pair_of_older_rules_stays_until_both_its_files_were_compared(ledger):
    fill(ledger, {number: take(number) for number in (1, 2, 3, 4)})
    old = {"version": "old", "evidence": {"relation": "duplicate"}}
    rows = [{"first_sha256": name(first), "second_sha256": name(first + 1), **old} for first in (1, 3)]
    with ledger.begin() as connection:
        upsert(connection, duplicate_pairs, rows, conflict=("first_sha256", "second_sha256", "version"))

    duplicates._store(ledger, [name(1), name(4)], [])
    assert set(found_pairs(ledger)) == {(1, 2), (3, 4)}
    duplicates._store(ledger, [name(2)], [])
    assert set(found_pairs(ledger)) == {(3, 4)}


def test_a_fingerprint_of_another_version_is_compared_with_nothing(ledger):
    fill(ledger, {1: take(1), 2: take(1)})
    with ledger.begin() as connection:
        connection.execute(sa.update(fingerprints).where(fingerprints.c.audio_sha256 == name(1)).values(version="older"))

    assert compare_new(ledger) == (1, 0, 0, 0)
    assert found_pairs(ledger) == {}


def test_cosines_of_the_current_space_join_the_evidence(ledger):
    fill(ledger, {1: take(1), 2: take(1)})
    with ledger.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO embedding_scalers (model, model_version, version, fitted_on, dims, mean, deviation, is_current)"
                " VALUES ('m', '1', 1, 2, 2, '{0,0}', '{1,1}', true)"
            )
        )
        for number, vector in ((1, "[1,0]"), (2, "[1,1]")):
            connection.execute(
                sa.text("INSERT INTO scaled_embeddings SELECT :file, id, CAST(:vector AS halfvec) FROM embedding_scalers"),
                {"file": name(number), "vector": vector},
            )

    compare_new(ledger, model="m")

    (evidence,) = found_pairs(ledger).values()
    assert evidence["cosine"] == pytest.approx(2**-0.5, abs=1e-3)


def test_a_day_is_fingerprinted_once_and_a_broken_file_does_not_stop_it(ledger, tmp_path, signals):
    store = AudioStore((tmp_path / "audio").as_uri())
    beat = signals.drum_beat(100, 10.0, 22_050)
    soundfile.write(tmp_path / "1.wav", beat, 22_050)
    soundfile.write(tmp_path / "2.wav", 0.3 * beat[2_205:], 22_050)
    (tmp_path / "3.wav").write_bytes(b"RIFF\x00\x00\x00\x00WAVEno sound at all")
    files = [store.put(tmp_path / f"{number}.wav") for number in (1, 2, 3)]
    with ledger.begin() as connection:
        upsert(connection, audio, [file_row(file.sha256, file.key) for file in files], conflict=("sha256",))
        rows = [generation_row(number, file.sha256) for number, file in enumerate(files)]
        upsert(connection, generations, rows, conflict=("generation_id",))
    assert len(audio_to_fingerprint(ledger, DAY)) == 3
    assert audio_to_fingerprint(ledger, "2026-11-02") == []

    pool = Pool(1, initializer=partial(prepare_fingerprinting, store.url))
    limits = Limits(budget_s=120, chunk_rows=2, item_cpu_s=60, item_memory_mb=2048)
    report = fingerprint_day(ledger, DAY, pool, limits)

    assert (report.done, report.failed.total(), report.remaining) == (2, 1, 0)
    assert audio_to_fingerprint(ledger, DAY) == []
    assert compare_new(ledger) == (3, 1, 0, 0)
    with ledger.begin() as connection:
        stored = connection.execute(sa.select(fingerprints.c.version, fingerprints.c.shape)).all()
    assert {row.version for row in stored} == {FINGERPRINT_VERSION}
    assert sorted(row.shape[0] for row in stored)[0] == 0
    assert FINGERPRINT_VERSION in PAIRS_VERSION
