"""The ledger as Parquet, and Parquet as tables: for whoever analyses with DuckDB or Polars without touching Postgres.

Belongs here: snapshots of capture days, reports. Does not: training datasets (`curation/`, `formats/`).
"""

import os
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from keeptake.curation.quality import PRINCIPAL
from keeptake.ledger.connection import Ledger
from keeptake.ledger.overviews import score_distributions, scores_by_provider_and_week, snapshot_of_day, snapshot_states

STATE = "keeptake_state"  # of the takes that a snapshot shows, in its Parquet's metadata
EMPTY = "0 0 0"


def write_snapshot(ledger: Ledger, day: str, folder: Path) -> tuple[Path, pl.DataFrame]:
    """Write what is known of a capture day's takes as `captured_on=DAY/takes.parquet`, in one rename.

    Returns
    -------
    (Path, pl.DataFrame)
        The file, and its rows in order of generation id; the same rows, scored and placed at the same times, give the same bytes.
    """
    state = snapshot_states(ledger, day).get(day, EMPTY)  # before the rows: what moves meanwhile makes the file outdated
    frame = snapshot_of_day(ledger, day)
    path = folder / f"captured_on={day}" / "takes.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{os.getpid()}.writing")  # `keeptake run` may write the day that the daemon writes
    frame.write_parquet(aside, metadata={STATE: state})
    aside.replace(path)
    return path, frame


def outdated_snapshots(ledger: Ledger, folder: Path) -> list[str]:
    """Capture days whose takes were scored anew or erased since their snapshot was written, or that have none; newest first."""
    written = {
        path.parent.name.removeprefix("captured_on="): _state_of(path)
        for path in folder.glob("captured_on=????-??-??/takes.parquet")
    }
    states = dict.fromkeys(written, EMPTY) | snapshot_states(ledger)
    return sorted((day for day, state in states.items() if written.get(day) != state), reverse=True)


def _state_of(path: Path) -> str | None:
    try:
        return pl.read_parquet_metadata(path).get(STATE)
    except (pl.exceptions.PolarsError, OSError):  # cut off or gone: written anew
        return None


def write_score_report(ledger: Ledger, folder: Path) -> tuple[Path, pl.DataFrame]:
    """Write the scores' distribution as `scores-DATE.md` beside its picture.

    Returns
    -------
    (Path, pl.DataFrame)
        The page, and its table: takes, mean and tenths by provider and week of capture.
    """
    from keeptake.formats.card import cell_text
    from keeptake.formats.figures import score_bars

    taken = scores_by_provider_and_week(ledger)
    folder.mkdir(parents=True, exist_ok=True)
    today = datetime.now(UTC).date().isoformat()
    (folder / f"scores-{today}.png").write_bytes(score_bars(score_distributions(ledger)[PRINCIPAL].counts))
    rows = [taken.columns, ["---"] * taken.width, *taken.rows()]
    lines = ["| " + " | ".join(cell_text(str(value)) for value in row) + " |" for row in rows]
    page = folder / f"scores-{today}.md"
    page.write_text(f"# Scores on {today}\n\n![scores](scores-{today}.png)\n\n" + "\n".join(lines) + "\n")
    return page, taken
