"""What went wrong and stays wrong: notices of failed runs, standing checks of rows that failed for good."""

import dagster as dg

from assets import report
from assets.audio_files import audio_files
from assets.raw_generations import raw_generations
from keeptake.capture.missing import alert_missing
from keeptake.ledger.expected import missing_by_provider
from keeptake.ledger.status import days_with_failures
from keeptake.settings import listed, settings
from resources.ledger import LedgerResource
from resources.notifier import NotifierResource


@dg.run_failure_sensor(default_status=dg.DefaultSensorStatus.RUNNING, minimum_interval_seconds=30)
def run_failures(context: dg.RunFailureSensorContext, notifier: NotifierResource) -> None:
    """Tell people that a run failed, with its job, its day and its error."""
    run = context.dagster_run
    day = run.tags.get("dagster/partition", "no partition")
    notifier.send(f"Keeptake: {run.job_name} failed", f"run {run.run_id} ({day}): {context.failure_event.message}")


@dg.sensor(minimum_interval_seconds=60, default_status=dg.DefaultSensorStatus.RUNNING)
def missing_metadata(ledger: LedgerResource) -> dg.SkipReason:
    """Tell people once of generations that a provider announced and nobody saved by the second look."""
    told = alert_missing(ledger.get(), listed(settings().notify_urls))
    return dg.SkipReason(f"{len(told)} announced generations were found missing at this look")


@dg.asset_check(asset=raw_generations, blocking=False)
def announced_generations_are_saved(ledger: LedgerResource) -> dg.AssetCheckResult:
    """Generations that were announced and never saved, by provider."""
    missing = missing_by_provider(ledger.get())
    return dg.AssetCheckResult(
        passed=not missing,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"missing": report.counts(missing, name="provider")},
        description=f"{sum(missing.values())} announced generations were never saved: ask the workstation to send them again",
    )


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
