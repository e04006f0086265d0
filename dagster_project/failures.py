"""What went wrong and stays wrong: notices of failed runs, standing checks of rows that failed for good."""

from collections.abc import Iterable
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

ERROR = dg.AssetCheckSeverity.ERROR  # a blocking check that warns blocks nothing


class Failure(NamedTuple):
    """What ended a step."""

    sentence: str
    kind: type[KeeptakeError]  # KeeptakeError itself for a mistake of ours


def failure_of(step_failure: dg.DagsterEvent, checks: Iterable[dg.AssetCheckEvaluation] = ()) -> Failure:
    """The step and its error: our own sentence, which says what to do, or else what it came from, with the stack.

    Parameters
    ----------
    step_failure : DagsterEvent
    checks : iterable of AssetCheckEvaluation
        What the run's checks found. Dagster's error of a blocking check names it and no more: the check says what is wrong.
    """
    error = step_failure.step_failure_data.error
    said = [_sentence(check) for check in checks if check.blocking and not check.passed and check.severity == ERROR]
    if error is not None and error.cls_name == "DagsterAssetCheckFailedError" and said:
        return Failure("; ".join(said), KeeptakeError)
    ours = {kind.__name__: kind for kind in _kinds(KeeptakeError)}
    while error is not None and error.cause is not None and error.cls_name not in ours:
        error = error.cause
    if error is None:
        return Failure(f"{step_failure.step_key}: unknown", KeeptakeError)
    stack = "" if error.cls_name in ours else "\n" + "".join(error.stack)
    return Failure(f"{step_failure.step_key}: {error.message.strip()}{stack}", ours.get(error.cls_name or "", KeeptakeError))


def _sentence(check: dg.AssetCheckEvaluation) -> str:
    what = check.description or "see its page"
    return f"{check.asset_key.to_user_string()}: the check {check.check_name} failed, and what follows waits: {what}"


def _kinds(kind: type[KeeptakeError]) -> set[type[KeeptakeError]]:
    return {kind}.union(*(_kinds(narrower) for narrower in kind.__subclasses__()))


@dg.run_failure_sensor(
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="Tells people (KEEPTAKE_NOTIFY_URLS) that a run failed, with its job, its day or policy, and its error.",
)
def run_failures(context: dg.RunFailureSensorContext, notifier: NotifierResource) -> None:
    """Send one notice a run."""
    run = context.dagster_run
    day = run.tags.get("dagster/partition", "no partition")
    checks = evaluations_of(context.instance, run.run_id)
    told = next((failure_of(step, checks).sentence for step in context.get_step_failure_events()), context.failure_event.message)
    notifier.send(f"Keeptake: {run.job_name} failed", f"run {run.run_id} ({day}): {told}")


def evaluations_of(instance: dg.DagsterInstance, run_id: str) -> list[dg.AssetCheckEvaluation]:
    """What the checks of a run found."""
    records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION).records
    events = [record.event_log_entry.get_dagster_event() for record in records]
    return [event.asset_check_evaluation_data for event in events]


@dg.sensor(
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells people once of generations that a provider announced and nobody saved by the second look.",
)
def missing_metadata(ledger: LedgerResource, notifier: NotifierResource) -> dg.SkipReason:
    """Send one notice a look."""
    told = alert_missing(ledger.get(), notifier.addresses)
    return dg.SkipReason(
        f"told of {len(told)} announced generations that nobody saved" if told else "no announced generation is newly missing"
    )


@dg.asset_check(asset=raw_generations, blocking=False)
def announced_generations_are_saved(ledger: LedgerResource) -> dg.AssetCheckResult:
    """Generations that were announced and never saved, by provider."""
    missing = missing_by_provider(ledger.get())
    return dg.AssetCheckResult(
        passed=not missing,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"missing": report.counts(missing, name="provider")},
        description=f"{sum(missing.values()):,} announced generations were never saved: ask the workstation to send them again"
        if missing
        else "every generation that was announced was saved",
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
        description=f"{sum(rows.values()):,} takes on {len(days)} days failed for good: see docs/quarantine.md"
        if rows
        else "no take failed for good",
    )
