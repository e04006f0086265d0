"""The workstation's own Prisma table, in a real Postgres: camelCase columns, JSON in text, rows that change and commit late."""

import json
import time
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from keeptake.errors import ConfigurationError, UnavailableError
from keeptake.ledger.connection import Ledger, libpq_url
from keeptake.ledger.generations import cursor_of
from keeptake.ledger.tables import generations
from keeptake.settings import Settings
from keeptake.sources import pull
from keeptake.sources.config import TableConfig
from keeptake.sources.intake import take_in
from keeptake.sources.pull import has_news, import_source, pull_sources, read_asks
from keeptake.sources.sql_table import TableSource

PRISMA = """
    CREATE TABLE "TrainingMetadata" (
        "id" TEXT PRIMARY KEY, "userId" TEXT NOT NULL, "generationId" TEXT NOT NULL UNIQUE, "userPrompt" TEXT NOT NULL,
        "aiEnhancedPrompt" TEXT, "generationParams" TEXT NOT NULL, "audioUrl" TEXT NOT NULL, "audioStorageKey" TEXT,
        "duration" DOUBLE PRECISION NOT NULL, "format" TEXT NOT NULL, "analysisMetadata" TEXT, "audioEmbedding" TEXT,
        "spectralFeatures" TEXT, "userFeedback" TEXT, "provider" TEXT NOT NULL, "modelUsed" TEXT, "generationCost" DECIMAL(65,30),
        "generationDuration" INTEGER, "usedForTraining" BOOLEAN NOT NULL DEFAULT false, "trainingEpoch" INTEGER,
        "qualityScore" DOUBLE PRECISION, "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
        "updatedAt" TIMESTAMP(3) NOT NULL
    )
"""


class Workstation:
    """The other system's database."""

    def __init__(self, url: str) -> None:
        self.url = libpq_url(url)
        self.connection = psycopg.connect(self.url, autocommit=True)
        self.connection.execute(PRISMA)

    def insert(self, number: int, updated_at: str | None = "2026-05-01 10:00:00.123", **changes: Any) -> None:
        row = {
            "id": f"c{number:04}",
            "userId": "user1",
            "generationId": f"gen_{number}",
            "userPrompt": "dark trap",
            "generationParams": json.dumps({"genre": "trap", "bpm": 140}),
            "audioUrl": "https://cdn.example/a.mp3",
            "duration": 30,
            "format": "mp3",
            "provider": "suno",
            "createdAt": "2026-05-01 09:00:00",
            "updatedAt": updated_at,
            **changes,
        }
        names = ", ".join(f'"{name}"' for name in row)
        self.connection.execute(
            f'INSERT INTO "TrainingMetadata" ({names}) VALUES ({", ".join(["%s"] * len(row))})', list(row.values())
        )

    def update(self, number: int, updated_at: str, **changes: Any) -> None:
        sets = ", ".join(f'"{name}" = %s' for name in (*changes, "updatedAt"))
        self.connection.execute(
            f'UPDATE "TrainingMetadata" SET {sets} WHERE id = %s', [*changes.values(), updated_at, f"c{number:04}"]
        )


@pytest.fixture
def workstation(empty_database):
    workstation = Workstation(empty_database)
    yield workstation
    workstation.connection.close()


def source_of(workstation: Workstation, **changes: Any) -> TableSource:
    return TableSource(TableConfig(url=workstation.url, name="workstation", **changes))


def row_of(ledger: Ledger, name: str) -> Any:
    with ledger.begin() as connection:
        return connection.execute(sa.select(generations).where(generations.c.generation_id == name)).one()


def cursor(ledger: Ledger) -> Any:
    with ledger.begin() as connection:
        return cursor_of(connection, "workstation")


def test_row_arrives_with_its_json_groups(workstation, ledger):
    workstation.insert(
        1,
        userFeedback='{"liked": true, "rating": 4}',
        analysisMetadata='{"rhythmCharacteristics": {"bpm": 140}}',
        audioEmbedding="[0.5, 1]",
        spectralFeatures="",
        generationCost="0.05",
        qualityScore=0.9,
        usedForTraining=True,
    )
    assert take_in(source_of(workstation), ledger).new == 1

    row = row_of(ledger, "gen_1")
    assert row.generation_params == {"genre": "trap", "bpm": 140}
    assert (row.liked, row.rating) == (True, 4)
    assert row.analysis_metadata == {"rhythmCharacteristics": {"bpm": 140}}
    assert row.audio_embedding == [0.5, 1.0]
    assert row.spectral_features is None
    assert row.generation_cost == 0.05
    assert row.created_at.isoformat() == "2026-05-01T09:00:00+00:00"
    assert row.quality_score is None  # theirs is a claim, not a measurement
    assert row.extra["qualityScore"] == 0.9


def test_newer_feedback_in_a_known_row_is_an_update_not_a_conflict(workstation, ledger):
    workstation.insert(1)
    workstation.insert(2)
    take_in(source_of(workstation), ledger)
    workstation.update(
        1, "2026-05-01 11:00:00", userFeedback='{"rating": 2, "feedback": "thin"}', usedForTraining=True, trainingEpoch=3
    )

    report = take_in(source_of(workstation), ledger)
    assert (report.new, report.feedback_updates, report.refused.total()) == (0, 1, 0)
    row = row_of(ledger, "gen_1")
    assert (row.rating, row.feedback, row.feedback_revision) == (2, "thin", 1)
    assert take_in(source_of(workstation), ledger).feedback_updates == 0


def test_pages_split_equal_times_and_lose_none(workstation, ledger):
    for number in range(25):
        workstation.insert(number)

    assert take_in(source_of(workstation, page_size=4), ledger).new == 25
    assert cursor(ledger) == {"updated_at": "2026-05-01 10:00:00.123", "undated": 0}


def test_row_that_commits_late_is_seen_within_the_overlap(workstation, ledger):
    """A cursor on time alone lost what another transaction committed after it with an earlier time."""
    workstation.insert(1, "2026-05-01 10:00:00")
    take_in(source_of(workstation), ledger)
    workstation.insert(2, "2026-05-01 09:55:00")

    assert take_in(source_of(workstation), ledger).new == 1


def test_control_without_the_overlap_it_is_lost(workstation, ledger):
    workstation.insert(1, "2026-05-01 10:00:00")
    take_in(source_of(workstation, overlap_s=0), ledger)
    workstation.insert(2, "2026-05-01 09:55:00")

    assert take_in(source_of(workstation, overlap_s=0), ledger).new == 0


def test_only_what_changed_is_read_again(workstation, ledger):
    for number in range(10):
        workstation.insert(number, f"2026-05-0{number // 5 + 1} 10:00:00")
    take_in(source_of(workstation), ledger)

    assert take_in(source_of(workstation), ledger).records == 5
    assert not source_of(workstation).has_news(cursor(ledger))
    workstation.update(0, "2026-05-03 10:00:00")
    assert source_of(workstation).has_news(cursor(ledger))


def test_rows_without_a_time_of_change_arrive_and_are_news_once(workstation, ledger):
    """All after the first page of them were lost, and the table was asked to be read anew at every tick."""
    workstation.connection.execute('ALTER TABLE "TrainingMetadata" ALTER "updatedAt" DROP NOT NULL')
    for number in range(8):
        workstation.insert(number, None if number < 5 else f"2026-05-0{number} 10:00:00")
    source = source_of(workstation, page_size=2)
    assert take_in(source, ledger).new == 8
    assert not source.has_news(cursor(ledger))

    workstation.insert(8, None)
    assert source.has_news(cursor(ledger))
    assert take_in(source, ledger).new == 1
    assert not source.has_news(cursor(ledger))


@pytest.mark.parametrize("rows", [0, 4])
def test_a_table_read_to_its_end_has_no_news(workstation, ledger, rows):
    """An empty one, and one of whole pages without times, were read again at every tick."""
    workstation.connection.execute("CREATE TABLE takes (id BIGINT PRIMARY KEY)")
    workstation.connection.execute("INSERT INTO takes SELECT generate_series(1, %s)", [rows])
    for source in (source_of(workstation, table="takes", page_size=2), source_of(workstation, page_size=2)):
        take_in(source, ledger)
        assert not source.has_news(cursor(ledger))


def test_a_view_that_fails_is_told_and_stops_no_other_source(workstation, ledger, tmp_path):
    """Its error went past everything that tells one source's failure from the run's."""
    workstation.connection.execute('CREATE VIEW broken AS SELECT t.*, 1 / (length("id") - 5) AS x FROM "TrainingMetadata" t')
    workstation.insert(1)
    (tmp_path / "feeds.toml").write_text(
        f"[[table]]\nname='broken'\nurl='{workstation.url}'\ntable='broken'\n"
        f"[[table]]\nname='sound'\nurl='{workstation.url}'\ntable='TrainingMetadata'\n"
    )
    settings = Settings(home=tmp_path, feeds_file=tmp_path / "feeds.toml", _env_file=None)
    report = pull_sources(ledger, settings)
    assert report.new == 1
    assert report.failed == {"broken": "source broken cannot be read: division by zero; mend the table or view"}


def test_news_that_no_run_can_take_in_are_asked_for_ever_more_seldom(workstation, ledger, tmp_path, monkeypatch):
    """A view that fails was news at each ask: a run every half minute, day and night."""
    workstation.connection.execute('CREATE VIEW broken AS SELECT t.*, 1 / (length("id") - 5) AS x FROM "TrainingMetadata" t')
    workstation.insert(1)
    (tmp_path / "feeds.toml").write_text(f"[[table]]\nname='stuck'\nurl='{workstation.url}'\ntable='broken'\n")
    settings = Settings(home=tmp_path, feeds_file=tmp_path / "feeds.toml", _env_file=None)
    monkeypatch.setattr(pull, "REMOTE_EVERY_S", 0.2)
    asked, cursor_of_sensor = 0, "{}"
    for _ in range(20):
        asks = read_asks(cursor_of_sensor)  # in a process of its own, as after each minute of the daemon
        asked += has_news(ledger, settings, asks)
        cursor_of_sensor = json.dumps(asks)
        pull_sources(ledger, settings)
        time.sleep(0.1)
    assert 2 <= asked <= 4, "at 0, 0.2, 0.6 and 1.4 s"


def test_a_table_that_does_not_answer_in_time_is_not_waited_for(workstation, ledger):
    workstation.connection.execute('CREATE VIEW slow AS SELECT t.* FROM "TrainingMetadata" t, pg_sleep(20)')
    workstation.insert(1)
    started_s = time.monotonic()
    with pytest.raises(UnavailableError, match="does not answer"):
        source_of(workstation, table="slow").has_news({"updated_at": None}, within_s=0.5)
    assert time.monotonic() - started_s < 10


def test_bad_rows_stop_no_other(workstation, ledger):
    workstation.insert(1, userFeedback="{half")
    workstation.insert(2, duration=-1)
    workstation.insert(3, generationParams="[]")
    workstation.insert(4)
    report = take_in(source_of(workstation), ledger)

    assert report.new == 1
    assert dict(report.refused) == {"invalid-userFeedback": 1, "invalid-duration": 1, "invalid-generationParams": 1}


def test_table_without_times_is_read_whole_until_it_changes(workstation, ledger):
    workstation.connection.execute('CREATE TABLE takes ("id" BIGINT PRIMARY KEY, who TEXT, prompt TEXT, url TEXT)')
    for number in (9, 10, 11):
        workstation.connection.execute("INSERT INTO takes VALUES (%s, 'u', 'p', 'https://x/a.mp3')", [number])
    fields = {"generationId": "url", "userId": "who", "userPrompt": "prompt", "audioUrl": "url"}
    source = source_of(
        workstation, table="takes", page_size=2, fields={**fields, "generationId": "id"}, defaults={"provider": "own"}
    )

    report = take_in(source, ledger)
    assert dict(report.refused) == {"invalid-generationId": 3}  # a number is no text: mapped as it is, refused by name
    assert not source.has_news(cursor(ledger))
    workstation.connection.execute("INSERT INTO takes VALUES (12, 'u', 'p', 'https://x/a.mp3')")
    assert source.has_news(cursor(ledger))


def test_address_names_database_and_table(workstation, ledger, tmp_path):
    workstation.insert(1)
    settings = Settings(home=tmp_path, _env_file=None)

    assert import_source(workstation.url, ledger, settings).new == 1
    assert import_source(f"{workstation.url}#TrainingMetadata", ledger, settings).new == 0
    with pytest.raises(ConfigurationError, match=r"no table public\.Other"):
        import_source(f"{workstation.url}#Other", ledger, settings)


@pytest.mark.parametrize(
    ("url", "schema", "name"),
    [
        ("postgresql://u:secret@host/one", "public", "postgresql://host/one#Takes"),
        ("postgresql://u:secret@host:5432/one", "public", "postgresql://host/one#Takes"),
        ("postgresql://u:secret@host:5433/one", "two", "postgresql://host:5433/one#two.Takes"),
    ],
)
def test_tables_behind_other_ports_and_in_other_schemas_have_cursors_of_their_own(url, schema, name):
    """They shared one, and the rows of one were skipped up to the newest of the other."""
    assert TableSource(TableConfig(url=url, table="Takes", schema=schema)).name == name


def test_database_that_is_away_is_told_without_its_password(ledger, tmp_path):
    with pytest.raises(UnavailableError) as failure:
        import_source("postgresql://me:s3cret@127.0.0.1:9/db", ledger, Settings(home=tmp_path, _env_file=None))
    assert "s3cret" not in str(failure.value)
    assert "s3cret" not in TableSource(TableConfig(url="postgresql://me:s3cret@host/db")).name


def test_their_table_is_never_written(workstation):
    source = source_of(workstation)
    with source._connection() as connection, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        connection.execute('DELETE FROM "TrainingMetadata"')
