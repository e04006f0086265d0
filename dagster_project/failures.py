"""What went wrong and stays wrong: notices of failed runs, standing checks of rows that failed for good."""

from typing import NamedTuple

import dagster as dg

from assets import report
from assets.audio_files import audio_files
from assets.raw_generations import raw_generations
from keeptake.capture.missing import alert_missing
from keeptake.errors import KeeptakeError
from keeptake.ledger.expected import missing_by_provider
from keeptake.ledger.status import days_with_failures
from resources.ledger import LedgerResource
from resources.notifier import NotifierResource


class Failure(NamedTuple):
    """What ended a step."""

    sentence: str
    kind: type[KeeptakeError]  # KeeptakeError itself for a mistake of ours


def failure_of(step_failure: dg.DagsterEvent) -> Failure:
    """The step and its error: our own sentence, which says what to do, or else what it came from, with the stack."""
    ours = {kind.__name__: kind for kind in _kinds(KeeptakeError)}
    error = step_failure.step_failure_data.error
    while error is not None and error.cause is not None and error.cls_name not in ours:
        error = error.cause
    if error is None:
        return Failure(f"{step_failure.step_key}: unknown", KeeptakeError)
    stack = "" if error.cls_name in ours else "\n" + "".join(error.stack)
    return Failure(f"{step_failure.step_key}: {error.message.strip()}{stack}", ours.get(error.cls_name or "", KeeptakeError))


def _kinds(kind: type[KeeptakeError]) -> set[type[KeeptakeError]]:
    return {kind}.union(*(_kinds(narrower) for narrower in kind.__subclasses__()))


@dg.run_failure_sensor(default_status=dg.DefaultSensorStatus.RUNNING, minimum_interval_seconds=30)
def run_failures(context: dg.RunFailureSensorContext, notifier: NotifierResource) -> None:
    """Tell people that a run failed, with its job, its day and its error."""
    run = context.dagster_run
    day = run.tags.get("dagster/partition", "no partition")
    told = next((failure_of(step).sentence for step in context.get_step_failure_events()), context.failure_event.message)
    notifier.send(f"Keeptake: {run.job_name} failed", f"run {run.run_id} ({day}): {told}")


@dg.sensor(minimum_interval_seconds=60, default_status=dg.DefaultSensorStatus.RUNNING)
def missing_metadata(ledger: LedgerResource, notifier: NotifierResource) -> dg.SkipReason:
    """Tell people once of generations that a provider announced and nobody saved by the second look."""
    told = alert_missing(ledger.get(), notifier.addresses)
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
