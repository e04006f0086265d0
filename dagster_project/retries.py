"""Trying chosen failed audio again from the Dagster UI: the same choice as `keeptake quarantine retry`."""

from datetime import timedelta

import dagster as dg
from pydantic import Field

from assets import report
from dagster_project.cli_quarantine import MOST_HOURS
from keeptake.errors import AudioReason
from keeptake.ledger.audio import retry
from resources.audio_store import AudioStoreResource
from resources.ledger import LedgerResource


class RetryConfig(dg.Config):
    """Which failed takes are tried again; at least one of the three choices, all that are given must hold."""

    reasons: list[str] = []  # noqa: RUF012  (a pydantic model copies its defaults)
    older_than_hours: float | None = Field(None, ge=0, le=MOST_HOURS)
    generation_ids: list[str] = []  # noqa: RUF012  (as above)
    dry_run: bool = False


@dg.op
def retry_failed_audio(
    context: dg.OpExecutionContext, config: RetryConfig, ledger: LedgerResource, audio_store: AudioStoreResource
) -> None:
    """Set chosen takes back to be fetched or heard; the `arrivals` sensor then asks for a run of their days."""
    counts = retry(
        ledger.get(),
        reasons=[AudioReason(reason) for reason in config.reasons],
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
