"""The ledger as Parquet, and Parquet as tables: for whoever analyses with DuckDB or Polars without touching Postgres.

Belongs here: snapshots of capture days, reports. Does not: training datasets (`curation/`, `formats/`).
"""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from keeptake.curation.quality import PRINCIPAL
from keeptake.ledger.connection import Ledger
from keeptake.ledger.overviews import scores, scores_by_provider_and_week, snapshot_of_day


def write_snapshot(ledger: Ledger, day: str, folder: Path) -> tuple[Path, pl.DataFrame]:
    """Write what is known of a capture day's takes as `captured_on=DAY/takes.parquet`, in one rename.

    Returns
    -------
    (Path, pl.DataFrame)
        The file, and its rows in order of generation id; the same rows give the same bytes.
    """
    frame = snapshot_of_day(ledger, day)
    path = folder / f"captured_on={day}" / "takes.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".writing")
    frame.write_parquet(aside)
    aside.replace(path)
    return path, frame


def write_score_report(ledger: Ledger, folder: Path) -> tuple[Path, pl.DataFrame]:
    """Write the scores' distribution as `scores-DATE.md` beside its picture.

    Returns
    -------
    (Path, pl.DataFrame)
        The page, and its table: takes, mean and tenths by provider and week of capture.
    """
    from keeptake.formats.figures import score_histogram

    taken = scores_by_provider_and_week(ledger)
    folder.mkdir(parents=True, exist_ok=True)
    today = datetime.now(UTC).date().isoformat()
    (folder / f"scores-{today}.png").write_bytes(score_histogram(scores(ledger, PRINCIPAL)["total"].to_list()))
    lines = [
        "| " + " | ".join(str(value) for value in row) + " |" for row in [taken.columns, ["---"] * taken.width, *taken.rows()]
    ]
    page = folder / f"scores-{today}.md"
    page.write_text(f"# Scores on {today}\n\n![scores](scores-{today}.png)\n\n" + "\n".join(lines) + "\n")
    return page, taken
