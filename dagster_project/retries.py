"""Trying chosen failed audio again from the Dagster UI: the same choice as `keeptake quarantine retry`."""

import difflib
from collections.abc import Collection
from datetime import timedelta

import dagster as dg
from pydantic import Field

from assets import report
from dagster_project.cli_quarantine import MOST_HOURS
from keeptake.errors import AudioReason, ConfigurationError
from keeptake.ledger.audio import retry
from resources.audio_store import AudioStoreResource
from resources.ledger import LedgerResource

KNOWN = ", ".join(AudioReason)


class RetryConfig(dg.Config):
    """Which failed takes are tried again; at least one of the three choices, all that are given must hold."""

    # Texts: the launchpad would take an enum by the names of the code, NOT_FOUND, which stand nowhere else.
    reasons: list[str] = Field([], description=f"Only takes that failed for one of these; empty: for any. Among {KNOWN}.")
    older_than_hours: float | None = Field(
        None, ge=0, le=MOST_HOURS, description="Only takes whose last attempt is at least so many hours ago; absent: of any age."
    )
    generation_ids: list[str] = Field([], description="Only the takes of these ids; empty: of any.")
    dry_run: bool = Field(False, description="Count what would be tried again, and change nothing.")


def read_reasons(names: Collection[str]) -> list[AudioReason]:
    """Reasons by their names.

    Raises
    ------
    ConfigurationError
        For a name that is none, with the one that was probably meant and all that there are.
    """
    known = {reason.value: reason for reason in AudioReason}
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name.replace("_", "-").lower(), known, n=1)
            meant = f"did you mean {near[0]}? " if near else ""
            raise ConfigurationError(f"{name!r} is no reason: {meant}Reasons are {KNOWN}")
    return [known[name] for name in names]


@dg.op
def retry_failed_audio(
    context: dg.OpExecutionContext, config: RetryConfig, ledger: LedgerResource, audio_store: AudioStoreResource
) -> None:
    """Set chosen takes back to be fetched or heard; the `arrivals` sensor then asks for a run of their days."""
    counts = retry(
        ledger.get(),
        reasons=read_reasons(config.reasons),
        older_than=timedelta(hours=config.older_than_hours) if config.older_than_hours is not None else None,
        generation_ids=config.generation_ids,
        is_sound=audio_store.get().is_sound,
        dry_run=config.dry_run,
    )
    context.add_output_metadata({"takes": sum(counts.values()), "reasons": report.counts(counts), "dry_run": config.dry_run})


@dg.job(description="Try the audio of failed takes again, chosen by reason, age or id (docs/quarantine.md).")
def retry_audio() -> None:
    """One op, configured in the launchpad."""
    retry_failed_audio()
