"""The original's exports of a version's takes: `seed/export.jsonl`, `export.csv`, `export.parquet`, a line a take.

Conventions: columns, order and spelling are those of the HTTP exports (`design/api.md`); numbers print as they were given (30,
not 30.0); audio URLs come without user and query. An interchange format: no trainer loads it. Belongs here: a version's exports
from its rows. Does not: the service's streams over the ledger.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from keeptake.formats.sidecars import write_lines
from keeptake.records import as_given, stated_bpm

ORIGINALS_VERSION = "1"
FOLDER = "seed"
CSV_COLUMNS = ("generationId", "userPrompt", "aiEnhancedPrompt", "audioUrl", "duration", "genre", "bpm", "rating", "used")
RUN_BY_SPREADSHEETS = ("=", "+", "-", "@", "\t", "\r")


def write_jsonl(folder: Path, rows: pl.DataFrame) -> None:
    """Write the training lines."""
    (folder / FOLDER).mkdir(exist_ok=True)
    write_lines(folder / FOLDER / "export.jsonl", (training_line(row) for row in _takes(rows)))


def write_csv(folder: Path, rows: pl.DataFrame) -> None:
    """Write the nine columns for analysis."""
    (folder / FOLDER).mkdir(exist_ok=True)
    with (folder / FOLDER / "export.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        writer.writerows([_cell(value) for value in analysis_row(row)] for row in _takes(rows))


def write_parquet(folder: Path, rows: pl.DataFrame) -> None:
    """Write the training lines with typed columns."""
    (folder / FOLDER).mkdir(exist_ok=True)
    takes = pl.DataFrame(list(_takes(rows)), schema=rows.schema)
    takes.select(
        "generation_id",
        "prompt",
        "audio_url",
        pl.coalesce("claimed_duration_s", "take_duration_s").alias("duration_s"),
        "provider",
        "model_used",
        "generation_params",
        "liked",
        "rating",
        "used",
        "created_at",
        pl.col("take_tempo_bpm").alias("tempo_bpm"),
        "key",
        pl.col("take_has_vocals").alias("has_vocals"),
        "loudness_lufs",
        pl.col("seed_score").alias("quality_score"),
        "split",
    ).write_parquet(folder / FOLDER / "export.parquet", statistics=False)


def training_line(row: dict[str, Any]) -> dict[str, Any]:
    """Line of a take as the JSONL export shows it."""
    metadata = {
        "generation_id": row["generation_id"],
        "provider": row["provider"],
        "model_used": row["model_used"],
        "generation_params": json.loads(row["generation_params"]),
        "liked": row["liked"],
        "rating": row["rating"],
        "used": row["used"],
        "created_at": row["created_at"],
        "heard": {
            "tempo_bpm": row["take_tempo_bpm"],
            "key": row["key"],
            "has_vocals": row["take_has_vocals"],
            "loudness_lufs": row["loudness_lufs"],
        },
    }
    return {
        "prompt": row["prompt"],
        "audio_url": row["audio_url"],
        "duration": as_given(row["claimed_duration_s"] or row["take_duration_s"]),
        "metadata": metadata,
        "quality_score": row["seed_score"],
    }


def analysis_row(row: dict[str, Any]) -> list[Any]:
    """Cells of a take as the CSV export shows it."""
    params = json.loads(row["generation_params"])
    return [
        row["generation_id"],
        row["user_prompt"],
        row["ai_enhanced_prompt"],
        row["audio_url"],
        as_given(row["claimed_duration_s"] or row["take_duration_s"]),
        params.get("genre"),
        as_given(stated_bpm(params)),
        row["rating"],
        row["used"],
    ]


def _takes(rows: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """First clip of each take, in the order of generation ids: what is said of the take is the same in all of them."""
    return rows.sort("generation_id", "start_s").unique("generation_id", keep="first", maintain_order=True).iter_rows(named=True)


def _cell(value: Any) -> Any:  # noqa: ANN401 -- a cell of any kind
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value.startswith(RUN_BY_SPREADSHEETS):
        return f"'{value}"
    return value
