"""The ledger as Parquet, and Parquet as tables: for whoever analyses with DuckDB or Polars without touching Postgres.

Belongs here: snapshots of capture days and reading published Parquet. Does not: training datasets (`curation/`, `formats/`).
"""

from pathlib import Path

import polars as pl

from keeptake.ledger.connection import Ledger
from keeptake.ledger.overviews import snapshot_of_day


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


def read_snapshots(folder: Path) -> pl.DataFrame:
    """All snapshots of a folder through DuckDB, the capture day a column."""
    import duckdb

    pattern = str(folder / "captured_on=*" / "takes.parquet")
    query = "SELECT * FROM read_parquet(?, hive_partitioning = true) ORDER BY captured_on, generation_id"
    return duckdb.sql(query, params=[pattern]).pl()
