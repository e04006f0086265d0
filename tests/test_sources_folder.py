"""Folders as sources: manifests, bare audio, the watched folder, half-written files, and an import that is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from keeptake.errors import ConfigurationError, UnavailableError
from keeptake.ledger.status import refused, status_rows
from keeptake.ledger.tables import generations
from keeptake.records import Accepted, read_record
from keeptake.settings import Settings
from keeptake.sources.bare_audio import BareAudioSource
from keeptake.sources.folder import ManifestSource, folder_sources, incoming_sources
from keeptake.sources.pull import has_news, import_source, open_sources, pull_sources
from keeptake.sources.settled import SETTLE_S


def line(name: str, **changes: Any) -> bytes:
    record = {"userId": "u", "generationId": name, "userPrompt": "p", "audioUrl": f"{name}.wav", "provider": "suno"}
    return json.dumps({**record, **changes}).encode() + b"\n"


def aged(path: Path, content: bytes = b"RIFF", *, age_s: float = 60) -> Path:
    """Write a file as if long ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (time.time() - age_s, time.time() - age_s))
    return path


def taken(ledger: Any) -> list[str]:
    with ledger.begin() as connection:
        return list(connection.scalars(sa.select(generations.c.generation_id).order_by(generations.c.generation_id)))


def settings_of(tmp_path: Path, **changes: Any) -> Settings:
    return Settings(home=tmp_path / "home", incoming_dir=tmp_path / "incoming", _env_file=None, **changes)


def test_every_line_of_the_labelled_set_ends_as_stated(ledger, dev_data, tmp_path):
    expected = [json.loads(text) for text in (dev_data / "expected_records.jsonl").read_text().splitlines()]
    report = import_source(str(dev_data), ledger, settings_of(tmp_path))

    lines_refused = {row["line"] for row in refused(ledger)}
    assert lines_refused == {row["line"] for row in expected if row["expect"] == "invalid"}
    assert len(lines_refused) == 24
    assert (report.new, report.replayed, report.blank, report.refused.total()) == (205 - 24 - 1 - 1, 1, 1, 24)
    known = {row["generation_id"] for row in status_rows(ledger)}
    assert known >= {row["generationId"] for row in expected if row["expect"] in ("valid", "audio-refused", "idempotent")}
    assert len(known) == report.new

    again = import_source(str(dev_data), ledger, settings_of(tmp_path))
    assert (again.new, again.replayed, again.feedback_updates) == (0, report.new + 1, 0)
    assert len(list(refused(ledger))) == 24


def test_manifest_lines_are_counted_from_one_whatever_stands_between(tmp_path, ledger):
    path = aged(tmp_path / "takes.jsonl", b"\xef\xbb\xbf" + line("a") + b"\n  \r\nnonsense\r\n" + line("b").rstrip(b"\n"))
    report = import_source(str(path), ledger, settings_of(tmp_path))

    assert (report.new, report.blank) == (2, 2)
    assert [(row["line"], row["reason"], row["source"]) for row in refused(ledger)] == [(4, "not-json", str(path))]


def test_endless_line_is_refused_and_the_next_one_read(tmp_path, ledger):
    path = aged(tmp_path / "takes.jsonl", line("big", userPrompt="x" * (3 << 20)) + line("a"))
    import_source(str(path), ledger, settings_of(tmp_path))

    assert [(row["line"], row["reason"]) for row in refused(ledger)] == [(1, "too-long-record")]
    assert taken(ledger) == ["a"]


def test_relative_audio_belongs_to_the_manifests_folder(tmp_path):
    source = ManifestSource(aged(tmp_path / "in" / "takes.jsonl", line("a")))

    assert source.audio_root == tmp_path / "in"


def test_folder_means_its_manifest_else_its_audio(tmp_path):
    aged(tmp_path / "a.wav")
    aged(tmp_path / "deep" / "b.mp3")
    (bare,) = folder_sources(tmp_path)
    assert [path.name for path in bare.files()] == ["a.wav", "b.mp3"]

    aged(tmp_path / "labels.jsonl", line("x"))
    aged(tmp_path / "more.jsonl", line("x"))
    assert [Path(source.name).name for source in folder_sources(tmp_path)] == ["labels.jsonl", "more.jsonl"]

    aged(tmp_path / "generations.jsonl", line("a"))
    assert [Path(source.name).name for source in folder_sources(tmp_path)] == ["generations.jsonl"]


def test_empty_folder_says_what_was_expected(tmp_path):
    with pytest.raises(ConfigurationError, match=r"expected generations\.jsonl"):
        folder_sources(tmp_path)


@pytest.mark.parametrize("text", ["/no/such/folder", "ftp://host/file", "takes.txt", "\0"])
def test_what_is_no_source_is_told(text, tmp_path):
    with pytest.raises(ConfigurationError, match="is no source"):
        open_sources(text, settings_of(tmp_path))


@pytest.mark.parametrize("text", ["http://[half", "http://host:port/x", "postgresql://host:port/x", "postgres://"])
def test_address_that_cannot_be_used_is_one_sentence(text, tmp_path, ledger):
    with pytest.raises((ConfigurationError, UnavailableError)):
        import_source(text, ledger, settings_of(tmp_path))


def records_of(source: BareAudioSource) -> list[Accepted]:
    reads = [read_record(record.raw) for batch in source.batches(None) for record in batch.records]
    assert all(isinstance(read, Accepted) for read in reads)
    return [read for read in reads if isinstance(read, Accepted)]


def test_audio_that_a_manifest_names_is_told_by_its_whole_name(tmp_path):
    """`1.mp3` was a part of `track1.mp3` and never taken in; a name with an accent, escaped in JSON, was taken in twice."""
    for name in ("1.mp3", "track1.mp3", "café.mp3", "my song.mp3", "half.mp3"):
        aged(tmp_path / name, name.encode())
    named = ("x/track1.mp3", "café.mp3", "my%20song.mp3")
    lines = "".join(json.dumps({"generationId": name, "audioUrl": name}) + "\n" for name in named)
    (tmp_path / "m.jsonl").write_text(lines + '{"audioUrl": "half.mp3", "gener')

    bare = BareAudioSource(tmp_path, claimed_by=(tmp_path / "m.jsonl",))
    assert [path.name for path in bare.files()] == ["1.mp3"]


def test_a_file_that_cannot_be_opened_is_no_news_and_keeps_no_other_from_being_read(tmp_path, ledger, monkeypatch):
    """One such manifest failed every run; one such audio file asked for a run every 15 seconds, without end."""
    for name in ("ok.mp3", "locked.mp3", "sub/locked.jsonl"):
        aged(tmp_path / "incoming" / name, name.encode())
    really = Path.open

    def open_unless_locked(path, *args, **more):  # whoever runs the tests may be root, who may open everything
        if path.stem == "locked":
            raise PermissionError(13, "Permission denied")
        return really(path, *args, **more)

    monkeypatch.setattr(Path, "open", open_unless_locked)
    assert has_news(ledger, settings_of(tmp_path))
    report = pull_sources(ledger, settings_of(tmp_path))
    assert [Path(name).name for name in report.failed] == ["locked.jsonl"]
    assert report.new == 1
    assert not has_news(ledger, settings_of(tmp_path))


def test_bare_audio_becomes_takes_of_its_own(tmp_path):
    for name in ("dark_trap-140bpm.wav", "sub/ü 🎹.MP3", "a:b.flac", ".hidden.wav", "notes.txt", "half.wav.part"):
        aged(tmp_path / name, name.encode())
    generations_ = [read.generation for read in records_of(BareAudioSource(tmp_path, is_recursive=True))]

    assert [(take.user_prompt, take.audio_url, take.format) for take in generations_] == [
        ("a:b", "./a:b.flac", "flac"),
        ("dark trap 140bpm", "dark_trap-140bpm.wav", "wav"),
        ("ü 🎹", "sub/ü 🎹.MP3", "mp3"),
    ]
    assert len({take.generation_id for take in generations_}) == 3


def test_same_file_is_the_same_take_and_other_content_another(tmp_path):
    source = BareAudioSource(tmp_path)
    aged(tmp_path / "a.wav", b"one")
    (first,) = records_of(source)
    aged(tmp_path / "a.wav", b"one", age_s=5)
    (touched,) = records_of(source)
    aged(tmp_path / "a.wav", b"two")
    (replaced,) = records_of(source)

    assert touched == first
    assert replaced.generation.generation_id != first.generation.generation_id


def test_name_that_is_no_text_is_refused_not_lost(tmp_path, ledger):
    place = tmp_path / "in"
    place.mkdir()
    (place / os.fsdecode(b"bad\xff.wav")).write_bytes(b"RIFF")
    report = import_source(str(place), ledger, settings_of(tmp_path))

    assert dict(report.refused) == {"invalid-userPrompt": 1}


def test_watched_folder_takes_each_thing_once(tmp_path, ledger):
    settings, incoming = settings_of(tmp_path), tmp_path / "incoming"
    assert not has_news(ledger, settings)
    aged(incoming / "loose.wav")
    aged(incoming / "named.wav")
    aged(incoming / "takes.jsonl", line("named"))
    aged(incoming / "delivery" / "generations.jsonl", line("d1"))
    aged(incoming / "delivery" / "d1.wav")
    aged(incoming / "stems" / "deep" / "kick.wav")

    assert has_news(ledger, settings)
    assert pull_sources(ledger, settings).new == 4
    assert [name.split(":")[0] for name in taken(ledger)] == ["d1", "kick", "loose", "named"]
    assert not has_news(ledger, settings)
    assert pull_sources(ledger, settings).as_dict() == {
        "new": 0,
        "replayed": 0,
        "feedback_updates": 0,
        "refused": {},
        "failed": {},
    }

    aged(incoming / "delivery" / "generations.jsonl", line("d1") + line("d2"))
    assert has_news(ledger, settings)
    assert pull_sources(ledger, settings).new == 1


def test_a_subfolder_whose_name_is_no_text_is_told_and_stops_no_other(tmp_path, ledger):
    """Its name went into a statement as it was, and no source was read any more, day and night."""
    settings = settings_of(tmp_path)
    bad = Path(os.fsdecode(os.fsencode(settings.incoming_location) + b"/\xff"))
    bad.mkdir(parents=True)
    aged(bad / "lost.wav")
    assert not has_news(ledger, settings)
    aged(settings.incoming_location / "take.wav")
    assert has_news(ledger, settings)
    report = pull_sources(ledger, settings)
    assert report.new == 1 and [why for why in report.failed.values() if "rename it" in why]


@pytest.mark.parametrize("text", ["not TOML", '[[table]]\nurl = "env:KEEPTAKE_NO_SUCH_VARIABLE"'])
def test_a_mistake_in_the_feeds_file_keeps_no_folder_from_being_read(tmp_path, ledger, text):
    """A name asked for its address, so that an unset variable stopped all sources and the runs of takes from the API."""
    (tmp_path / "feeds.toml").write_text(text)
    settings = settings_of(tmp_path, feeds_file=tmp_path / "feeds.toml")
    assert not has_news(ledger, settings)
    settings.incoming_location.mkdir(parents=True)
    aged(settings.incoming_location / "take.wav")
    assert has_news(ledger, settings)
    report = pull_sources(ledger, settings)
    assert report.new == 1 and len(report.failed) == 1


def test_half_written_file_waits(tmp_path, ledger):
    settings, incoming = settings_of(tmp_path), tmp_path / "incoming"
    aged(incoming / "a.wav", age_s=SETTLE_S / 3)
    aged(incoming / "takes.jsonl", line("x"), age_s=SETTLE_S / 3)

    assert not has_news(ledger, settings)
    assert pull_sources(ledger, settings).new == 0
    aged(incoming / "a.wav")
    assert has_news(ledger, settings)
    assert pull_sources(ledger, settings).new == 1


def test_control_without_waiting_the_half_is_taken(tmp_path):
    aged(tmp_path / "a.wav", age_s=0)

    assert len(records_of(BareAudioSource(tmp_path, settle_s=0))) == 1
    assert records_of(BareAudioSource(tmp_path, settle_s=SETTLE_S)) == []


def test_manifest_that_grows_while_it_is_read_is_read_again(tmp_path):
    lines = [line(f"g{number}") for number in range(1500)]
    path = aged(tmp_path / "takes.jsonl", b"".join(lines[:1200]))
    source = ManifestSource(path)
    batches = source.batches(None)
    next(batches)
    path.write_bytes(b"".join(lines))

    (last,) = batches
    assert last.cursor is None
    assert source.has_news(last.cursor)
    undisturbed = list(source.batches(None))
    assert not source.has_news(undisturbed[-1].cursor)


def test_time_in_the_future_is_a_wrong_clock(tmp_path):
    aged(tmp_path / "a.wav", age_s=-86_400)

    assert len(records_of(BareAudioSource(tmp_path, settle_s=SETTLE_S))) == 1


def test_no_incoming_folder_is_no_source(tmp_path):
    assert incoming_sources(tmp_path / "missing") == []


IMPORT_SLOWLY = """
import sys
from keeptake.ledger.connection import Ledger
from keeptake.settings import Settings
from keeptake.sources.pull import import_source
import_source(sys.argv[1], Ledger(sys.argv[2]), Settings(_env_file=None), progress=lambda *_: print("batch", flush=True))
"""


def test_killed_import_goes_on_and_says_nothing_twice(tmp_path, ledger):
    bad = b"".join(b'{"userId": "u%d"}\n' % number for number in range(10))
    path = aged(
        tmp_path / "takes.jsonl", b"".join(line(f"g{number:05}", userFeedback={"rating": 4}) for number in range(8000)) + bad
    )
    process = subprocess.Popen([sys.executable, "-c", IMPORT_SLOWLY, str(path), ledger.url], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    before = len(taken(ledger))
    assert 2000 <= before < 8000
    assert before % 1000 == 0

    report = import_source(str(path), ledger, settings_of(tmp_path))
    assert (report.new, report.replayed, report.feedback_updates) == (8000 - before, before, 0)
    assert len(taken(ledger)) == 8000
    assert len(list(refused(ledger))) == 10
    with ledger.begin() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM feedback_history")) == 8000
