"""The original's exports of many rows at once: JSONL training lines, CSV for analysis, Parquet with types.

Conventions: columns, order and spelling are a compatibility promise (`prompt, audio_url, duration, metadata, quality_score`; nine
CSV columns). Numbers print as they were given (30, not 30.0), JSON is spaced as Python's own writer spaces it, lines end in a
newline. Text is made column by column, never row by row: a line of the file never becomes a Python object.

Belongs here: text and files from rows. Does not: which rows (a dataset's version, `originals.py`), the service's streams, which
Postgres writes itself (`ledger/exports.py`).
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

CSV_COLUMNS = ("generationId", "userPrompt", "aiEnhancedPrompt", "audioUrl", "duration", "genre", "bpm", "rating", "used")
ROWS = pl.Schema(
    {
        "generation_id": pl.String(),
        "user_prompt": pl.String(),
        "ai_enhanced_prompt": pl.String(),
        "audio_url": pl.String(),
        "duration_s": pl.Float64(),
        "genre": pl.String(),
        "bpm": pl.String(),  # as given: a number or text
        "provider": pl.String(),
        "model_used": pl.String(),
        "generation_params": pl.String(),  # JSON
        "liked": pl.Boolean(),
        "rating": pl.Int16(),
        "used": pl.Boolean(),
        "created_at": pl.String(),  # RFC 3339
        "tempo_bpm": pl.Float64(),
        "key": pl.String(),
        "has_vocals": pl.Boolean(),
        "loudness_lufs": pl.Float64(),
        "quality_score": pl.Float64(),
    }
)
"""Columns that rows have here; all but the identifier and the prompt may be null."""

Piece = str | pl.Expr  # text that is the same in every row, or a column of texts
Pieces = list[Piece]

SLICE_ROWS = 8_000  # whose text stays within the caches: streamed in polars' own larger pieces a million rows cost twice as much
_RUN_BY_SPREADSHEETS = r"\A[=+\-@\t\r]"
_ESCAPED = {character: json.dumps(character)[1:-1] for character in (*map(chr, range(32)), '"', "\\")}


def write_jsonl(rows: pl.DataFrame, path: Path) -> None:
    """Write a training line a row.

    Parameters
    ----------
    rows : pl.DataFrame
        With the columns of `ROWS`, in the order in which they are to stand.
    path : Path
        Written anew.
    """
    line = _training_line(rows)
    with path.open("wb") as file:
        for part in rows.iter_slices(SLICE_ROWS):
            file.write(_bytes(part.select(line).to_series()))


def write_csv(rows: pl.DataFrame, path: Path, *, is_excel_safe: bool = True) -> None:
    """Write the nine columns for analysis.

    Parameters
    ----------
    rows : pl.DataFrame
        With the columns of `ROWS`.
    path : Path
        Written anew.
    is_excel_safe : bool
        Put `'` before cells that a spreadsheet would run.
    """
    rows.lazy().select(_cells(is_excel_safe)).sink_csv(path)


def write_parquet(rows: pl.DataFrame, path: Path) -> None:
    """Write the rows with their types; without statistics, which would keep prompts of rows that are erased later."""
    shown = pl.coalesce("ai_enhanced_prompt", "user_prompt").alias("prompt")
    rest = pl.exclude("user_prompt", "ai_enhanced_prompt", "genre", "bpm")
    rows.select(shown, rest).write_parquet(
        path, compression="zstd", compression_level=3, statistics=False, row_group_size=100_000
    )


def _training_line(rows: pl.DataFrame) -> pl.Expr:
    """One line a row, joined from as few pieces as these rows allow: joining is what the time goes into."""
    prompt = pl.coalesce(_escaped(rows["ai_enhanced_prompt"]), _escaped(rows["user_prompt"]))
    heard: dict[str, Pieces] = {
        "tempo_bpm": _number("tempo_bpm"),
        "key": _text(rows["key"]),
        "has_vocals": _bare("has_vocals"),
        "loudness_lufs": _number("loudness_lufs"),
    }
    metadata: dict[str, Pieces] = {
        "generation_id": _text(rows["generation_id"]),  # of letters, digits and . _ : -
        "provider": _text(rows["provider"], _escaped(rows["provider"])),
        "model_used": _text(rows["model_used"], _escaped(rows["model_used"])),
        "generation_params": [pl.col("generation_params").fill_null("{}")],
        "liked": _bare("liked"),
        "rating": _bare("rating"),
        "used": _bare("used"),
        "created_at": _text(rows["created_at"]),
        "heard": _object(heard),
    }
    line: dict[str, Pieces] = {
        "prompt": _text(rows["user_prompt"], prompt),
        "audio_url": _text(rows["audio_url"], _escaped(rows["audio_url"])),
        "duration": _number("duration_s"),
        "metadata": _object(metadata),
        "quality_score": _number("quality_score"),
    }
    return pl.concat_str(*map(_piece, _merged([*_object(line), "\n"])))


def _object(fields: Mapping[str, Pieces]) -> Pieces:
    """Pieces that read as a JSON object once joined."""
    pieces: Pieces = []
    for at, (name, value) in enumerate(fields.items()):
        pieces += [f'{", " if at else "{"}"{name}": ', *value]
    return [*pieces, "}"]


def _merged(pieces: Pieces) -> Pieces:
    merged: Pieces = []
    for piece in pieces:
        if isinstance(piece, str) and merged and isinstance(merged[-1], str):
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged


def _piece(piece: Piece) -> pl.Expr:
    return pl.lit(piece) if isinstance(piece, str) else piece


def _text(column: pl.Series, text: pl.Expr | None = None) -> Pieces:
    text = pl.col(column.name) if text is None else text
    return [pl.concat_str(pl.lit('"'), text, pl.lit('"')).fill_null("null")] if column.null_count() else ['"', text, '"']


def _escaped(column: pl.Series) -> pl.Expr:
    """As few replacements as the texts need: looking at the bytes at once costs a tenth of looking into every text."""
    has_control = np.frombuffer(_bytes(column), np.uint8).min(initial=0xFF) < 0x20
    text = pl.col(column.name)
    if has_control or column.str.contains("\\", literal=True).any():
        return text.str.replace_many(_ESCAPED)
    return text.str.replace_all('"', _ESCAPED['"'], literal=True) if column.str.contains('"', literal=True).any() else text


def _bytes(column: pl.Series) -> memoryview:
    """All texts of a column, one behind the other, without a copy of any."""
    _, _, data = column.to_arrow(compat_level=pl.CompatLevel.oldest()).buffers()
    return memoryview(data or b"")


def _bare(name: str) -> Pieces:
    return [pl.col(name).cast(pl.String).fill_null("null")]


def _number(name: str) -> Pieces:
    return [_printed(name).fill_null("null")]


def _cells(is_excel_safe: bool) -> list[pl.Expr]:
    sources = ("generation_id", "user_prompt", "ai_enhanced_prompt", "audio_url", "duration_s", "genre", "bpm", "rating", "used")
    columns = zip(CSV_COLUMNS, sources, strict=True)
    return [_cell(source, is_excel_safe).alias(name) for name, source in columns]


def _cell(source: str, is_excel_safe: bool) -> pl.Expr:
    if source == "duration_s":
        return _printed(source)
    column = pl.col(source)
    if not is_excel_safe or ROWS[source] != pl.String():
        return column
    return pl.when(column.str.contains(_RUN_BY_SPREADSHEETS)).then("'" + column).otherwise(column)


def _printed(name: str) -> pl.Expr:
    """A number as it was given: whole ones without a fraction; what is no number in JSON is null."""
    column = pl.col(name)
    return pl.when(column.is_finite()).then(column.cast(pl.String).str.strip_suffix(".0"))
