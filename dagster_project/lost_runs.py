"""Runs whose process is gone: killed, or down with the machine. Dagster calls them started for ever; their day waits for them.

Dagster watches the workers of a cluster, not processes of its own code server, and nobody watches those of the command line. A
run holds a claim in the ledger while its process lives (`resources/ledger.py`); one that held it and does not any more is ended
as failed, so that it is tried again and what waits for it goes on.

Belongs here: ending them. Does not: retries, which Dagster's daemon does by `instance/dagster.yaml`.
"""

import json

import dagster as dg

from resources.ledger import CLAIMED_TAG, LedgerResource, claim_of

GONE = "its process is gone: killed, or down with the machine. What it had committed stays; the rest is done by the next run."


def lost(instance: dg.DagsterInstance, ledger: LedgerResource, seen: list[str]) -> tuple[list[str], list[str]]:
    """Started runs that do not hold their claim.

    Parameters
    ----------
    seen : list of str
        Those of the last look: a run lets go of its claim a moment before it is called ended.

    Returns
    -------
    (lost, unclaimed)
        Ids of the runs that were seen twice, and of all that were seen now.
    """
    started = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED], tags={CLAIMED_TAG: "true"}))
    unclaimed = sorted(run.run_id for run in started if not ledger.get().is_claimed(claim_of(run.run_id)))
    return [run_id for run_id in unclaimed if run_id in seen], unclaimed


def read_seen(cursor: str | None) -> list[str]:
    """Runs of the last look; a cursor that makes no sense counts as none.

    >>> read_seen('["a", 1]'), read_seen("no JSON"), read_seen("3"), read_seen(None)
    (['a'], [], [], [])
    """
    try:
        found = json.loads(cursor or "[]")
    except ValueError:
        return []
    return [run_id for run_id in found if isinstance(run_id, str)] if isinstance(found, list) else []


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Ends runs whose process is gone, at the second look: they are tried again, and what waits for them goes on.",
)
def lost_runs(context: dg.SensorEvaluationContext, ledger: LedgerResource) -> dg.SkipReason:
    """Report what `lost` finds as failed."""
    ended, unclaimed = lost(context.instance, ledger, read_seen(context.cursor))
    for run_id in ended:
        run = context.instance.get_run_by_id(run_id)
        if run is not None and run.status == dg.DagsterRunStatus.STARTED:
            context.instance.report_run_failed(run, GONE)
    context.update_cursor(json.dumps(unclaimed))
    return dg.SkipReason(f"{len(ended)} runs without a process were ended, {len(unclaimed) - len(ended)} will be looked at again")
