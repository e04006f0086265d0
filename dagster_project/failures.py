"""What went wrong and stays wrong: notices of failed runs, standing checks of rows that failed for good."""

import dagster as dg

from assets import report
from assets.audio_files import audio_files
from keeptake.ledger.status import days_with_failures
from resources.ledger import LedgerResource
from resources.notifier import NotifierResource


@dg.run_failure_sensor(default_status=dg.DefaultSensorStatus.RUNNING, minimum_interval_seconds=30)
def run_failures(context: dg.RunFailureSensorContext, notifier: NotifierResource) -> None:
    """Tell people that a run failed, with its job, its day and its error."""
    run = context.dagster_run
    day = run.tags.get("dagster/partition", "no partition")
    notifier.send(f"Keeptake: {run.job_name} failed", f"run {run.run_id} ({day}): {context.failure_event.message}")


@dg.asset_check(asset=audio_files, blocking=False)
def no_day_has_failed_rows(ledger: LedgerResource) -> dg.AssetCheckResult:
    """Days on which takes failed for good, by reason: what a retry does not mend waits for a person."""
    days = days_with_failures(ledger.get())
    rows = {f"{day} {reason}": n for day, reasons in days.items() for reason, n in reasons.items()}
    return dg.AssetCheckResult(
        passed=not rows,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"failed": report.counts(rows, name="day and reason"), "days": len(days)},
        description=f"{sum(rows.values())} takes on {len(days)} days failed for good: see docs/quarantine.md",
    )
