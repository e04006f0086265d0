"""Runs of the graph in this process, for the command line: the same jobs that the sensors ask for.

Belongs here: executing jobs and adding up what they report. Does not: deciding when (`sensors.py`).
"""

from pathlib import Path
from typing import Any

import dagster as dg

from assets.partitions import known_days
from dagster_project.definitions import defs
from dagster_project.failures import Failure, failure_of
from dagster_project.jobs import place_anew, publish_dataset, renew_snapshots, rescore, take_to_score
from keeptake.curation.policy import load_policy
from keeptake.datasets import show_version
from keeptake.embedding import DEFAULT_MODEL
from keeptake.embedding.models import version_of
from keeptake.errors import (
    BusyError,
    ConfigurationError,
    KeeptakeError,
    LedgerUnavailableError,
    PublicationError,
    UnavailableError,
)
from keeptake.ledger.connection import Ledger
from keeptake.ledger.scores import count_lagging
from keeptake.ledger.status import pending_by_day, status
from keeptake.ledger.vectors import outdated_by_day
from keeptake.settings import settings
from keeptake.sources.config import read_config
from keeptake.sources.pull import today
from keeptake.warehouse import outdated_snapshots

COUNTED = {"analyzed_features": "analyzed", "embeddings": "embedded", "quality_scores": "scored"}
# Others take more than a sentence.
SAID_AGAIN = (ConfigurationError, UnavailableError, LedgerUnavailableError, BusyError, PublicationError)
# Dagster would print each failure three times, with its stack: `execute` says it once, and the run's page keeps all.
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def execute(job_name: str, *, partition_key: str | None = None) -> dg.ExecuteInProcessResult:
    """Run a job here and now, recorded in the home's Dagster instance.

    Raises
    ------
    KeeptakeError
        If it fails, with the first error's text; with its stack, where it is none that we raise on purpose.
    """
    with dg.DagsterInstance.get() as instance:
        result = defs.resolve_job_def(job_name).execute_in_process(
            partition_key=partition_key, instance=instance, raise_on_error=False, run_config=QUIET
        )
    if not result.success:
        steps = (event for event in result.all_events if event.is_step_failure)
        checks = result.get_asset_check_evaluations()
        failure = next((failure_of(step, checks) for step in steps), Failure("no step failed; see the UI", KeeptakeError))
        # Of the kind that it was in the step, by which the command line chooses its exit code.
        raised = failure.kind if failure.kind in SAID_AGAIN else KeeptakeError
        raise raised(f"run {result.run_id} of {job_name} failed: {failure.sentence}")
    return result


def _count(result: dg.ExecuteInProcessResult, asset: str, name: str) -> int:
    events = result.asset_materializations_for_node(asset)
    values = [event.metadata[name].value for event in events if name in event.metadata]
    return sum(value for value in values if isinstance(value, int))


def run_pending(ledger: Ledger) -> dict[str, Any]:
    """Run the chain for every day with pending rows, place what an older version of the model placed, score what lags.

    The newest day first, and a day that fails keeps no other waiting. Snapshots that this leaves outdated are written anew.

    Returns
    -------
    dict
        `analyzed`, `embedded`, `scored`: what this call did; `failed`: rows newly quarantined, by reason; `remaining`: rows that
        wait.

    Raises
    ------
    ConfigurationError, UnavailableError
        At once: no other day would fare better.
    KeeptakeError
        If days failed, when the others are done; with the newest one's error.
    """
    if feeds := settings().feeds_file:
        read_config(feeds)  # somebody waits here who can mend it; a run that a sensor asked for goes on with the other sources
    before = status(ledger)
    done = dict.fromkeys(COUNTED.values(), 0)
    failures: list[KeeptakeError] = []
    for day in sorted({*pending_by_day(ledger), today()}, reverse=True):
        try:
            result = execute(take_to_score.name, partition_key=day)
        except (ConfigurationError, UnavailableError):
            raise
        except KeeptakeError as failure:
            failures.append(failure)
            continue
        for asset, name in COUNTED.items():
            done[name] += _count(result, asset, name)
    for day in outdated_by_day(ledger, DEFAULT_MODEL, version_of(DEFAULT_MODEL)):
        done["embedded"] += _count(execute(place_anew.name, partition_key=day), "embeddings", "embedded")
    if count_lagging(ledger):
        done["scored"] += _count(execute(rescore.name), "quality_scores", "scored")
    for day in known_days(outdated_snapshots(ledger, settings().snapshots_location)):
        execute(renew_snapshots.name, partition_key=day)
    if failures:
        others = f" So did {len(failures) - 1} other days." if len(failures) > 1 else ""
        raise type(failures[0])(f"{failures[0]}{others}")
    after = status(ledger)
    failed = {reason: n - before["audio_reasons"].get(reason, 0) for reason, n in after["audio_reasons"].items()}
    return {
        **done,
        "failed": {reason: n for reason, n in failed.items() if n > 0},
        "remaining": sum(pending_by_day(ledger).values()),
    }


def publish_policy(ledger: Ledger, policy: str) -> dict[str, Any]:
    """Publish a policy's dataset and say what is visible then.

    Parameters
    ----------
    policy : str
        Its name, or its file in the policies' folder.

    Returns
    -------
    dict
        `name`, `version`, `path`, `rows` by split, `is_new`.

    Raises
    ------
    ConfigurationError
        If there is no such policy, or if it lies in another folder.
    PublicationError
        If a version could not become visible; the present one stays what it was.
    UnavailableError
        If the ledger or the audio store is away.
    BusyError
        If another command publishes this dataset: two would write into one folder.
    """
    chosen = settings()
    name = _name_in_the_folder(policy, chosen.policies_dir)
    with ledger.claim(f"the publication of {name}"):
        result = execute(publish_dataset.name, partition_key=name)
    is_new = any(bool(event.metadata["is_new"].value) for event in result.asset_materializations_for_node("dataset_manifest"))
    shown = show_version(name, datasets_dir=chosen.datasets_location)
    return {**{key: shown[key] for key in ("name", "version", "path", "rows")}, "is_new": is_new}


def _name_in_the_folder(policy: str, policies_dir: Path) -> str:
    """Name of a policy that was asked for by its name or by its file: the graph knows those of its own folder alone."""
    name = load_policy(policy, policies_dir).name
    file = Path(policy) if policy.endswith(".toml") else policies_dir / f"{policy}.toml"
    if file.parent.resolve() != policies_dir.resolve():
        raise ConfigurationError(
            f"the policy {policy} does not lie in {policies_dir}: move it there, or name that folder in KEEPTAKE_POLICIES_DIR"
        )
    return name
