"""The original's exports of a version's takes: `seed/export.jsonl`, `export.csv`, `export.parquet`, a line a take.

An interchange format: no trainer loads it. Audio URLs come without user and query. Belongs here: which rows of a version stand
in them, under which names. Does not: how their text is made (`seed.py`), the service's streams (`ledger/exports.py`).
"""

import json
from pathlib import Path

import polars as pl

from keeptake.formats import seed
from keeptake.records import as_given

ORIGINALS_VERSION = "1"
FOLDER = "seed"


def write_jsonl(folder: Path, rows: pl.DataFrame) -> None:
    """Write the training lines."""
    seed.write_jsonl(takes(rows), _file(folder, "export.jsonl"))


def write_csv(folder: Path, rows: pl.DataFrame) -> None:
    """Write the nine columns for analysis."""
    seed.write_csv(takes(rows), _file(folder, "export.csv"))


def write_parquet(folder: Path, rows: pl.DataFrame) -> None:
    """Write the training lines with typed columns."""
    seed.write_parquet(takes(rows), _file(folder, "export.parquet"))


def takes(rows: pl.DataFrame) -> pl.DataFrame:
    """Takes of a version's clips, with the columns of `seed.ROWS`: what is said of a take is the same in all of its clips."""
    first = rows.sort("generation_id", "start_s").unique("generation_id", keep="first", maintain_order=True)
    asked = [json.loads(params) for params in first["generation_params"]]
    told = first.with_columns(
        duration_s=pl.coalesce("claimed_duration_s", "take_duration_s"),
        genre=pl.Series([params.get("genre") for params in asked], dtype=pl.String),
        bpm=pl.Series([_as_text(params.get("bpm")) for params in asked], dtype=pl.String),
        tempo_bpm=pl.col("take_tempo_bpm"),
        has_vocals=pl.col("take_has_vocals"),
        loudness_lufs=pl.col("take_loudness_lufs"),
        quality_score=pl.col("seed_score"),
    )
    return told.select([pl.col(name).cast(kind) for name, kind in seed.ROWS.items()])


def _as_text(bpm: float | str | None) -> str | None:
    return bpm if bpm is None or isinstance(bpm, str) else str(as_given(bpm))


def _file(folder: Path, name: str) -> Path:
    (folder / FOLDER).mkdir(exist_ok=True)
    return folder / FOLDER / name
