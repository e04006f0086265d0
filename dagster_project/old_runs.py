"""Runs that nobody will look at again: deleted with their events and logs, or Dagster's tables grow for ever.

Kept however old: what is not finished, and whatever last made an asset or a partition of one. Dagster reads from the events of
a run that a partition exists, and without them a finished day shows as missing. Ticks of sensors and schedules are purged by the
daemon itself (`instance/dagster.yaml`, `retention`).

Belongs here: which runs go. Does not: the ledger, which forgets nothing.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import dagster as dg
from dagster._core.storage.dagster_run import FINISHED_STATUSES  # public nowhere, and the UI's own list

from keeptake.settings import settings

_MATERIALIZED = dg.DagsterEventType.ASSET_MATERIALIZATION


class Purge(NamedTuple):
    """What became of the runs before a day."""

    deleted: int
    kept: int  # an asset or a partition was last made by them
    remaining: int  # the time was up: for the next purge


def latest_materializations(instance: dg.DagsterInstance) -> set[int]:
    """Storage ids of the latest materialization of every asset, and of every partition of it."""
    events, keys = instance.event_log_storage, list(instance.all_asset_keys())
    latest = {found for found in events.get_latest_materialization_storage_ids(keys).values() if found is not None}
    for key in keys:
        latest |= set(events.get_latest_storage_id_by_partition(key, _MATERIALIZED).values())
    return latest


def last_runs(instance: dg.DagsterInstance) -> set[str]:
    """Runs that the UI names as the last of an asset, whatever became of them."""
    records = instance.get_asset_records(list(instance.all_asset_keys()))
    return {record.asset_entry.last_run_id for record in records if record.asset_entry.last_run_id}


def _materialized(instance: dg.DagsterInstance, run_id: str) -> Iterator[int]:
    for record in instance.get_records_for_run(run_id, of_type=_MATERIALIZED).records:
        yield record.storage_id


def purge_runs(instance: dg.DagsterInstance, before: datetime, *, budget_s: float) -> Purge:
    """Delete the runs that ended before a time, oldest first, with their events and logs.

    Parameters
    ----------
    instance : DagsterInstance
    before : datetime
        In any time zone.
    budget_s : float
        Seconds after which what is left is left for the next time; each deletion stands by itself.
    """
    ends_s = time.monotonic() + budget_s
    ended = dg.RunsFilter(statuses=FINISHED_STATUSES, updated_before=before)
    runs = instance.get_run_ids(ended)[::-1]  # newest first, as Dagster lists them
    latest, last = latest_materializations(instance), last_runs(instance)
    deleted = kept = 0
    for run_id in runs:
        if time.monotonic() > ends_s:
            break
        if run_id in last or not latest.isdisjoint(_materialized(instance, run_id)):
            kept += 1
            continue
        instance.compute_log_manager.delete_logs(
            prefix=[run_id]
        )  # first: a run without logs is found again, logs without one never
        instance.delete_run(run_id)
        deleted += 1
    return Purge(deleted, kept, len(runs) - deleted - kept)


@dg.op
def delete_old_runs(context: dg.OpExecutionContext) -> None:
    """Delete what is older than `KEEPTAKE_KEEP_RUNS_DAYS`."""
    before = datetime.now(UTC) - timedelta(days=settings().keep_runs_days)
    done = purge_runs(context.instance, before, budget_s=settings().run_budget_s)
    context.add_output_metadata({"before": before.isoformat(), **done._asdict()})


@dg.job(description="Delete old runs with their events and logs; the last one of every partition stays.")
def forget_old_runs() -> None:
    """One op."""
    delete_old_runs()


@dg.schedule(
    job=forget_old_runs,
    cron_schedule="0 5 * * 0",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every Sunday at 05:00 UTC: deletes runs older than KEEPTAKE_KEEP_RUNS_DAYS, with their events and logs.",
)
def weekly_purge(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Ask for the purge."""
    return dg.RunRequest()
