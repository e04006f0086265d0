"""Hugging Face `audiofolder`: `metadata.jsonl` beside the clips of each split, and the front matter that names them.

Conventions (measured with datasets 5.2.0): every split's metadata must have the same columns *and types*, so a value that is not
known is `""` or 0.0, never null: a column that is null throughout one split stops the reader. File names hold no split's name, as
the reader then takes that for the split. The card's front matter makes `load_dataset(FOLDER)` work at all: without it the
sidecars are taken for the data. Parquet shards and tars in folders of their own beside the splits disturb neither (decision
0060).

Belongs here: metadata and front matter. Does not: the card's text (`card.py`), running the reader (`hugging_face.py`).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from keeptake.formats.audiocraft import by_split
from keeptake.formats.readers import Reading
from keeptake.formats.sidecars import HF_SPLITS, write_lines

AUDIOFOLDER_VERSION = "2"  # 2: generation_id
METADATA = "metadata.jsonl"
LONGEST_S = 30.0  # musicgen-dreamboothing keeps 0 < n < 30 s, both strictly, at its defaults
TYPES: Mapping[str, type] = {
    "file_name": str,
    "text": str,
    "prompt": str,
    "caption": str,
    "bpm": float,
    "key": str,
    "genre": str,
    "mood": str,
    "vocals": str,
    "duration": float,
    "quality_score": float,
    "provider": str,
    "licence": str,
    "generation_id": str,
    "parent": str,
}


def write(folder: Path, rows: pl.DataFrame, *, sample_rate_hz: int) -> None:
    """Write the metadata of each split that has rows."""
    for split, split_rows in by_split(rows):
        described = (metadata(row, sample_rate_hz) for row in split_rows.iter_rows(named=True))
        write_lines(folder / split / METADATA, described)


def metadata(row: Mapping[str, Any], sample_rate_hz: int) -> dict[str, Any]:
    """Describe a clip with every column of `TYPES`, none of them null."""
    return {
        "file_name": f"{row['id']}.flac",
        "text": row["text"],
        "prompt": row["prompt"],
        "caption": row["caption"],
        "bpm": row["tempo_bpm"] or 0.0,
        "key": row["key"] or "",
        "genre": row["genre"] or "",
        "mood": row["mood"] or "",
        "vocals": {True: "yes", False: "no", None: "unknown"}[row["has_vocals"]],
        "duration": row["frames"] / sample_rate_hz,
        "quality_score": row["quality_score"] or 0.0,
        "provider": row["provider"],
        "licence": row["licence"] or "",
        "generation_id": row["generation_id"],
        "parent": row["parent"],
    }


def data_files(splits: Sequence[str]) -> list[dict[str, Any]]:
    """Front matter's list of files: what `load_dataset(FOLDER)` reads."""
    return [{"split": HF_SPLITS[split], "path": [f"{split}/*.flac", f"{split}/{METADATA}"]} for split in splits]


def read_back(folder: Path, split: str) -> Reading:
    """Read a split by the documented rules of `audiofolder` and of musicgen-dreamboothing on top of it."""
    import soundfile

    reading = Reading("musicgen-dreamboothing", split, "documented rules of datasets 5.2 and musicgen-dreamboothing a94bcf9")
    if (folder / METADATA).exists() or list(folder.glob("metadata.*")):
        return reading.fail("metadata beside the splits: the reader loses every caption")
    listed = folder / split / METADATA
    if not listed.is_file():
        return reading.fail(f"{METADATA} is not there: the clips would load without captions")
    if len(list((folder / split).glob("metadata.*"))) > 1:
        return reading.fail("metadata of two kinds: the reader takes one only")
    seen = set()
    for number, text in enumerate(listed.read_text(encoding="utf-8").split("\n")[:-1] or [""], start=1):
        reading.rows_in += 1
        try:
            row = json.loads(text, parse_constant=_refuse_constant)
            for name, kind in TYPES.items():
                if not isinstance(row.get(name), kind):
                    raise TypeError(f"{name} is {row.get(name)!r}, not {kind.__name__}: columns must agree over all splits")
            name = row["file_name"]
            if name in seen or Path(name).is_absolute() or ".." in Path(name).parts or "://" in name:
                raise ValueError(f"file_name {name!r} is taken, absolute or leads out of the folder")
            seen.add(name)
            info = soundfile.info(folder / split / name)
            if info.channels != 1:
                raise ValueError(f"{info.channels} channels: mono is expected")
            if not 0 < info.frames / info.samplerate < LONGEST_S:
                raise ValueError(f"{info.frames / info.samplerate:g} s: the trainer keeps clips strictly shorter than 30 s")
            if not row["text"]:
                raise ValueError("no text")
        except (ValueError, TypeError, OSError, soundfile.LibsndfileError) as error:
            reading.lose(f"line {number}", error)
        else:
            reading.rows_out += 1
    for path in sorted((folder / split).glob("*.flac")):
        if path.name not in seen:
            reading.rows_in += 1
            reading.lose(path.name, "a clip without a line of metadata is skipped in silence")
    return reading


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")
