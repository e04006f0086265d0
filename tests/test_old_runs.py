"""Old runs are forgotten, and no partition with them: on a real Dagster instance over a real Postgres."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import TickStatus

from dagster_project import old_runs
from dagster_project.definitions import defs
from dagster_project.home import dagster_url, write_instance
from dagster_project.old_runs import forget_old_runs, purge_runs
from keeptake.settings import settings

DAYS = ["2026-01-01", "2026-01-02", "2026-01-03"]
AGE_DAYS = 100
by_day = dg.StaticPartitionsDefinition(DAYS)


@dg.asset(partitions_def=by_day)
def heard(context: dg.AssetExecutionContext):
    print("a line for the log")
    if "break" in context.run.tags:
        raise ValueError("on purpose")
    return dg.MaterializeResult(metadata={"run": context.run.run_id})


@dg.asset
def scores():
    return dg.MaterializeResult()


@dg.asset_check(asset=scores)
def are_numbers():
    return dg.AssetCheckResult(passed=True)


@pytest.fixture
def instance(ledger, tmp_path, monkeypatch):
    """An instance as every home has it, its tables in the throw-away database."""
    monkeypatch.setenv("KEEPTAKE_DAGSTER_URL", dagster_url(ledger.url))
    folder = write_instance(tmp_path, Path("policies"))
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    with dg.DagsterInstance.get() as found:
        yield found


class History:
    """Runs by name, each made and then made old."""

    def __init__(self, ledger, instance):
        self.ledger, self.instance, self.runs = ledger, instance, {}

    def run(self, name, *assets, day=None, tags=None, age_days=AGE_DAYS):
        done = dg.materialize([*assets], instance=self.instance, partition_key=day, tags=tags, raise_on_error=False)
        self.runs[name] = done.run_id
        self.age(name, age_days)

    def age(self, name, age_days):
        moved = "create_timestamp = create_timestamp - :age, update_timestamp = update_timestamp - :age"
        with self.ledger.begin() as connection:
            given = {"age": timedelta(days=age_days), "run": self.runs[name]}
            connection.execute(sa.text(f"UPDATE dagster.runs SET {moved} WHERE run_id = :run"), given)

    def left(self):
        names = {run_id: name for name, run_id in self.runs.items()}
        return {names[record.dagster_run.run_id] for record in self.instance.get_run_records()}

    def events(self, name):
        with self.ledger.begin() as connection:
            query = sa.text("SELECT count(*) FROM dagster.event_logs WHERE run_id = :run")
            return connection.scalar(query, {"run": self.runs[name]})

    def logs(self, name):
        return list((Path(self.instance.root_directory) / "storage" / self.runs[name]).rglob("*.out"))

    def days(self):
        return self.instance.get_materialized_partitions(heard.key)

    def purge(self, budget_s=60.0):
        return purge_runs(self.instance, datetime.now(UTC) - timedelta(days=90), budget_s=budget_s)


@pytest.fixture
def history(ledger, instance):
    """Old runs: two of the first day, one of the second, a broken repeat of it, two of the whole; and young ones of the third."""
    made = History(ledger, instance)
    made.run("first", heard, day=DAYS[0])
    made.run("first-again", heard, day=DAYS[0])
    made.run("second", heard, day=DAYS[1])
    made.run("second-broken", heard, day=DAYS[1], tags={"break": "yes"})
    made.run("scores", scores, are_numbers)
    made.run("scores-again", scores, are_numbers)
    made.run("third", heard, day=DAYS[2], age_days=80)
    made.run("third-again", heard, day=DAYS[2], age_days=0)
    return made


def test_old_runs_go_with_their_events_and_logs_and_every_partition_stays(history):
    assert history.logs("first") and history.events("first") > 5
    done = history.purge()
    assert history.left() == {"first-again", "second", "scores-again", "third", "third-again"}
    assert (done.deleted, done.kept, done.remaining) == (3, 3, 0)
    assert history.days() == set(DAYS)
    for name in ("first", "second-broken", "scores"):
        assert (history.events(name), history.logs(name)) == (0, [])
    for name in ("first-again", "second", "scores-again"):
        assert history.events(name) > 5 and history.logs(name)
    assert history.instance.get_latest_materialization_event(scores.key).run_id == history.runs["scores-again"]
    key = are_numbers.check_key
    checked = history.instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    assert checked.run_id == history.runs["scores-again"]
    assert history.purge() == (0, 3, 0)


def test_control_by_age_alone_finished_days_would_show_as_missing(history, monkeypatch):
    monkeypatch.setattr(old_runs, "latest_materializations", lambda instance: set())
    monkeypatch.setattr(old_runs, "last_runs", lambda instance: set())
    history.purge()
    assert history.left() == {"third", "third-again"}
    assert history.days() == {DAYS[2]}
    assert not history.instance.fetch_materializations(scores.key, limit=1).records


def test_a_run_that_is_not_finished_stays_however_old(history, instance):
    waiting = instance.create_run_for_job(dg.define_asset_job("wait", [heard]).resolve(asset_graph=graph()))
    history.runs["waiting"] = waiting.run_id
    history.age("waiting", AGE_DAYS)
    history.purge()
    assert "waiting" in history.left()


def graph():
    return dg.Definitions(assets=[heard]).resolve_asset_graph()


def test_what_the_time_was_too_short_for_is_left_for_the_next(history):
    assert history.purge(budget_s=-1.0) == (0, 0, 6)
    assert len(history.left()) == 8
    assert history.purge().deleted == 3


def test_the_job_forgets_by_the_setting(history, ledger, monkeypatch):
    def forget(days):
        monkeypatch.setenv("KEEPTAKE_KEEP_RUNS_DAYS", str(days))
        settings.cache_clear()
        done = defs.resolve_job_def(forget_old_runs.name).execute_in_process(instance=history.instance)
        history.runs[f"purge-{days}"] = done.run_id
        return history.left()

    try:
        assert {"first", "second-broken", "scores"} <= forget(AGE_DAYS + 1)
        assert forget(AGE_DAYS - 1) & {"first", "second-broken", "scores"} == set()
    finally:
        settings.cache_clear()


def test_the_daemon_purges_ticks_of_sensors_and_schedules_by_itself(instance):
    """Dagster keeps all but skipped ticks for ever unless it is told otherwise."""
    kept_days = {kind: instance.get_tick_retention_settings(kind) for kind in (InstigatorType.SENSOR, InstigatorType.SCHEDULE)}
    ended = (TickStatus.SKIPPED, TickStatus.SUCCESS, TickStatus.FAILURE)
    assert {kind.name: {days[status] for status in ended} for kind, days in kept_days.items()} == {
        "SENSOR": {7},
        "SCHEDULE": {90},
    }
