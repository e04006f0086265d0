"""The ledger: its shape, its migrations, its claims, its embedded server."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import polars as pl
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from keeptake.errors import BusyError, LedgerUnavailableError, UnavailableError
from keeptake.ledger.connection import Ledger
from keeptake.ledger.generations import Outcome, accept
from keeptake.ledger.migrate import current_revision, migrate
from keeptake.ledger.server import embedded_server
from keeptake.ledger.serving import ServingPool
from keeptake.ledger.tables import metadata
from keeptake.records import read_record

A_GENERATION = """
    INSERT INTO generations
        (generation_id, identity_sha256, user_id, user_prompt, audio_url, provider, source, captured_on, created_at)
    VALUES (:id, '\\x00', 'u', 'p', 'a.wav', 'suno', 'test', '2026-01-01', now())
"""


def test_migrated_shape_equals_the_tables(ledger):
    with ledger.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_indexes_are_as_named(ledger):
    """`alembic check` does not see operator classes, conditions and parameters: the whole definitions are compared."""
    with ledger.begin() as connection:
        rows = connection.execute(
            sa.text("SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'generations' ORDER BY 1")
        ).all()
    expected = {
        "ix_generations_audio_sha256": "USING btree (audio_sha256)",
        "ix_generations_captured_on": "USING btree (captured_on)",
        "ix_generations_created_at_id": "USING btree (created_at, id)",
        "ix_generations_failed": "USING btree (audio_last_attempt_at) WHERE ((audio_status = ANY (ARRAY['quarantined'::text,"
        " 'retrying'::text])) OR (status = 'quarantined'::text))",
        "ix_generations_pending": "USING btree (captured_on) WHERE ((status <> ALL (ARRAY['scored'::text, 'quarantined'::text]))"
        " OR (audio_status = 'retrying'::text))",
        "ix_generations_provider": "USING btree (provider)",
        "ix_generations_user_id": "USING btree (user_id)",
        "pk_generations": "USING btree (id)",
        "uq_generations_generation_id": "USING btree (generation_id)",
    }
    assert {name: definition[definition.index("USING") :] for name, definition in rows} == expected


def test_down_and_up_again_with_data(empty_database):
    ledger = Ledger(empty_database)
    head = migrate(ledger)
    with ledger.begin() as connection:
        connection.execute(sa.text(A_GENERATION), {"id": "g1"})

    assert migrate(ledger, "base") is None
    with ledger.begin() as connection:
        assert connection.scalar(sa.text("SELECT to_regclass('public.generations')")) is None
    assert migrate(ledger) == head
    with ledger.begin() as connection:
        connection.execute(sa.text(A_GENERATION), {"id": "g1"})
        assert current_revision(connection) == head
    ledger.dispose()


@pytest.mark.parametrize("created_at", [None, "2026-05-01T12:00:00.25+02:00"])
def test_rows_with_an_empty_unknown_field_are_repeated_and_not_in_conflict_after_the_upgrade(empty_database, created_at):
    """A feed repeats its records at every reading: each that has such a field would have been refused from then on."""
    ledger = Ledger(empty_database)
    migrate(ledger, "0005")
    record = {
        "userId": "u",
        "generationId": "g1",
        "userPrompt": "p",
        "audioUrl": "https://x/a.mp3",
        "provider": "suno",
        "duration": 30,
        "generationParams": {"bpm": 140.0, "style": ""},
        "createdAt": created_at,
        "lyrics": "",
        "plan": {"name": "pro", "note": ""},
    }
    accepted = read_record(json.dumps(record).encode())
    as_before = replace(accepted.generation, extra={**accepted.generation.extra, "lyrics": ""})
    with ledger.begin() as connection:
        assert accept(connection, [accepted._replace(generation=as_before)], source="feed")[0] == [Outcome.NEW]
        assert accept(connection, [accepted], source="feed")[0] == [Outcome.CONFLICT]  # control
    migrate(ledger)
    with ledger.begin() as connection:
        assert accept(connection, [accepted], source="feed")[0] == [Outcome.REPLAYED]
        assert connection.scalar(sa.text("SELECT extra FROM generations")) == {"plan": {"name": "pro", "note": ""}}
    ledger.dispose()


@pytest.mark.parametrize(
    ("column", "value"), [("status", "'done'"), ("audio_reason", "'bad luck'"), ("rating", "6"), ("duration_s", "'NaN'")]
)
def test_a_value_outside_the_closed_lists_is_refused(ledger, column, value):
    with ledger.begin() as connection:
        connection.execute(sa.text(A_GENERATION), {"id": "g1"})
    with pytest.raises(sa.exc.IntegrityError), ledger.begin() as connection:
        connection.execute(sa.text(f"UPDATE generations SET {column} = {value}"))


def test_arrow_reads_typed_columns(ledger):
    with ledger.begin() as connection:
        connection.execute(sa.text(A_GENERATION), {"id": "g1"})
    frame = ledger.arrow("SELECT generation_id, captured_on, generation_params::text AS params, rating FROM generations")
    assert frame.schema == {"generation_id": pl.String, "captured_on": pl.Date, "params": pl.String, "rating": pl.Int16}
    assert frame.row(0)[2] == "{}"


def test_a_claim_is_exclusive_and_ends_with_its_block(ledger):
    other = Ledger(ledger.url)
    with ledger.claim("day:2026-01-01"):
        with pytest.raises(BusyError, match="2026-01-01"), other.claim("day:2026-01-01"):
            pass
        with other.claim("day:2026-01-02"):
            pass
    with other.claim("day:2026-01-01"):
        pass
    other.dispose()


def test_a_dead_ledger_is_one_clear_sentence():
    ledger = Ledger("postgresql://nobody:secret@127.0.0.1:1/none")
    with pytest.raises(LedgerUnavailableError, match="does not answer") as caught, ledger.begin():
        pass
    assert "secret" not in str(caught.value)
    with pytest.raises(LedgerUnavailableError):
        ledger.arrow("SELECT 1")


@pytest.mark.parametrize(
    ("state", "kind", "told"),
    [
        ("40P01", UnavailableError, "SQLSTATE 40P01: it was said"),
        ("40001", UnavailableError, "SQLSTATE 40001: it was said"),
        ("55P03", UnavailableError, "SQLSTATE 55P03: it was said"),
        ("57014", UnavailableError, "SQLSTATE 57014: it was said"),
        ("53100", LedgerUnavailableError, "the disk of the ledger is full"),
        ("57P01", LedgerUnavailableError, "does not answer"),
        ("08006", LedgerUnavailableError, "does not answer"),
    ],
)
def test_what_postgres_gives_up_is_told_by_its_cause(ledger, state, kind, told):
    """A full disk and two transactions that waited for each other were once told as a ledger that does not answer."""
    raising = f"DO $$ BEGIN RAISE EXCEPTION 'it was said' USING ERRCODE = '{state}'; END $$"
    with pytest.raises(UnavailableError, match=told) as caught, ledger.begin() as connection:
        connection.execute(sa.text(raising))
    assert type(caught.value) is kind

    with pytest.raises(UnavailableError, match=told if "answer" not in told else "broke off") as served:
        asyncio.run(_served(ledger, raising))
    assert type(served.value) is kind


async def _served(ledger, statement):
    pool = ServingPool(ledger.url, deadline_s=10.0)
    await pool.open()
    try:
        await pool.rows(statement)
    finally:
        await pool.close()


def test_a_statement_that_is_wrong_keeps_its_own_error(ledger):
    with pytest.raises(sa.exc.ProgrammingError), ledger.begin() as connection:
        connection.execute(sa.text("SELECT no_such_column FROM generations"))


def test_a_session_that_is_ended_is_an_outage(ledger):
    with pytest.raises(LedgerUnavailableError, match="does not answer"), ledger.begin() as connection:
        connection.execute(sa.text("SELECT pg_terminate_backend(pg_backend_pid())"))


JOIN_AND_DIE = """
import os, pathlib, sys
from keeptake.ledger.server import embedded_server
with embedded_server(pathlib.Path(sys.argv[1])) as url:
    os.kill(os.getpid(), 9)
"""


JOIN_AND_LEAVE = """
import pathlib, sys
from keeptake.ledger.server import embedded_server
with embedded_server(pathlib.Path(sys.argv[1])):
    pass
"""


def test_a_server_whose_making_was_killed_is_made_anew(tmp_path):
    """Half-made files were taken for whole ones, and the home was of no use for ever after."""
    process = subprocess.Popen([sys.executable, "-c", JOIN_AND_LEAVE, str(tmp_path)], start_new_session=True)
    while not list(tmp_path.glob("pg*/global/pg_control")):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    with embedded_server(tmp_path) as url:
        ledger = Ledger(url)
        migrate(ledger)
        ledger.dispose()
    assert list(tmp_path.glob("pg.unfinished-*")) == []


def test_several_use_one_home_at_once_and_the_last_to_leave_stops_the_server(tmp_path):
    """With one lock for users and for starting, `keeptake status` once waited until `keeptake up` had ended."""
    with embedded_server(tmp_path):
        subprocess.run([sys.executable, "-c", JOIN_AND_LEAVE, str(tmp_path)], check=True, timeout=30)
        assert (tmp_path / "pg" / "postmaster.pid").exists()
    assert not (tmp_path / "pg" / "postmaster.pid").exists()


def test_one_process_uses_a_home_again_after_its_server_stopped(tmp_path):
    """The package once handed out the server that it remembered, stopped as it was."""
    for _ in range(2):
        with embedded_server(tmp_path) as url:
            ledger = Ledger(url)
            with ledger.begin() as connection:
                assert connection.scalar(sa.text("SELECT 1")) == 1
            ledger.dispose()


def test_a_killed_user_neither_loses_data_nor_keeps_the_server_up(tmp_path):
    """A `kill -9` once left its process id in the package's list, and the server ran for ever."""
    subprocess.run([sys.executable, "-c", JOIN_AND_DIE, str(tmp_path)], check=False)
    assert (tmp_path / "pg" / "postmaster.pid").exists()
    with embedded_server(tmp_path) as url:
        ledger = Ledger(url)
        migrate(ledger)
        ledger.dispose()
    assert not (tmp_path / "pg" / "postmaster.pid").exists()
