"""`keeptake quarantine …`: audio that failed, and another try for it."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from dagster_project.cli_output import Json, print_json, print_rows
from keeptake.errors import AudioReason

if TYPE_CHECKING:
    from keeptake.ledger.audio import Quarantined

app = typer.Typer(no_args_is_help=True, help="Audio that could not be fetched or heard, with its reasons.")

MOST_HOURS = 876_000  # a hundred years
Reasons = Annotated[list[AudioReason] | None, typer.Option("--reason", help="Only rows that failed for this; repeatable.")]


@app.command("list")
def list_(
    reason: Reasons = None,
    day: Annotated[datetime | None, typer.Option(help="Capture day.", formats=["%Y-%m-%d"])] = None,
    most: Annotated[int, typer.Option(min=1, max=100_000, help="How many.")] = 50,
    as_json: Json = False,
) -> None:
    """The newest failures."""
    from dagster_project.home import open_home
    from keeptake.ledger.audio import list_quarantined

    with open_home() as ledger:
        found = list_quarantined(ledger, reasons=reason or (), day=f"{day:%Y-%m-%d}" if day else None, most=most)
    print_rows([row._asdict() if as_json else _for_people(row) for row in found], as_json, "Quarantined audio")


def _for_people(row: "Quarantined") -> dict[str, object]:
    """What fits into a terminal; `--json` has the rest."""
    again = "never by itself" if row.next_attempt_at is None else f"{row.next_attempt_at:%Y-%m-%d %H:%M}"
    return {"take": row.generation_id, "reason": row.reason, "detail": row.detail, "tries": row.attempts, "next (UTC)": again}


@app.command()
def retry(
    generation_id: Annotated[list[str] | None, typer.Argument()] = None,
    reason: Reasons = None,
    older_than_h: Annotated[float | None, typer.Option(min=0, max=MOST_HOURS, help="Hours since the last attempt.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Say what would be tried, change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Let chosen rows be tried again by the next run of their day."""
    from dagster_project.home import open_home
    from keeptake.audio_store import AudioStore
    from keeptake.ledger.audio import retry as again
    from keeptake.settings import settings

    age = None if older_than_h is None else timedelta(hours=older_than_h)
    is_sound = AudioStore(settings().audio_location).is_sound
    with open_home() as ledger:
        chosen = again(
            ledger, reasons=reason or (), older_than=age, generation_ids=generation_id or (), is_sound=is_sound, dry_run=dry_run
        )
    print_json(chosen) if as_json else print_rows(
        [chosen] if chosen else [], False, "Tried again" if not dry_run else "Would be tried"
    )
