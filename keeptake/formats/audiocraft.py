"""AudioCraft's MusicGen: `data.jsonl` in each split's folder, and a sidecar of tags beside each clip.

Conventions: rules as observed on the real classes (AudioCraft 896ec7c). `path` in the manifest is absolute, as the reader
resolves a relative one against its own repository; a version that was moved gets new manifests from `relocate.py`. Durations are
those of the written files: a manifest that says 60 s for a file of 5 s makes a third of the reads fail.

Belongs here: writing, and reading back by the reader's rules. Does not: the audio (`clips.py`).
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from keeptake.formats.readers import Reading
from keeptake.formats.sidecars import SPLITS, write_json, write_lines

AUDIOCRAFT_VERSION = "1"
REQUIRED_META = {"path": str, "duration": float, "sample_rate": int}
REQUIRED_TAGS = ("key", "artist", "description", "bpm", "genre", "title", "name", "instrument", "moods")
MIN_WEIGHT = 0.01  # a weight of 0 stops the sampler
SUFFIXES = (".wav", ".mp3", ".flac", ".ogg", ".m4a")


def write(folder: Path, rows: pl.DataFrame, *, location: Path, sample_rate_hz: int) -> None:
    """Write the manifests and sidecars of a version.

    Parameters
    ----------
    folder : Path
        Where the files are written.
    rows : pl.DataFrame
        The version's rows, with `frames`.
    location : Path
        Where the folder will lie once it is published.
    sample_rate_hz : int
        Of the clips.
    """
    for split, split_rows in by_split(rows):
        lines = []
        for row in split_rows.iter_rows(named=True):
            write_json(folder / split / f"{row['id']}.json", tags(row))
            lines.append(
                {
                    "path": str(location / split / f"{row['id']}.flac"),
                    "duration": row["frames"] / sample_rate_hz,
                    "sample_rate": sample_rate_hz,
                    "amplitude": None,
                    "weight": max(MIN_WEIGHT, row["quality_score"] or 0.0),
                    "info_path": None,
                }
            )
        write_lines(folder / split / "data.jsonl", lines)


def tags(row: Mapping[str, Any]) -> dict[str, Any]:
    """Sidecar of a clip: every key that the reader asks for, lists where it would split texts, and what was said and heard."""
    return {
        "key": row["key"],
        "artist": None,
        "description": row["text"],
        "bpm": row["tempo_bpm"],
        "genre": row["genre"],
        "title": None,
        "name": None,
        "instrument": ", ".join(row["instruments"]) or None,
        "moods": [row["mood"]] if row["mood"] else [],
        "keywords": [],
        "prompt": row["prompt"],
        "caption": row["caption"],
        "quality_score": row["quality_score"],
        "provider": row["provider"],
        "licence": row["licence"],
        "parent": row["parent"],
        "start_s": row["start_s"],
    }


def by_split(rows: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """Rows of each split that has any, sorted by id."""
    for split in SPLITS:
        found = rows.filter(pl.col("split") == split).sort("id")
        if not found.is_empty():
            yield split, found


def read_back(folder: Path, split: str, *, location: Path) -> Reading:
    """Read a split as AudioCraft would, with `location` standing for the folder."""
    import soundfile

    reading = Reading("audiocraft", split, "documented rules of AudioCraft 896ec7c")
    manifest = folder / split / "data.jsonl"
    if not manifest.is_file():
        return reading.fail(f"{manifest.name} is not there")
    for number, text in enumerate(manifest.read_text(encoding="utf-8").split("\n")[:-1] or [""], start=1):
        reading.rows_in += 1
        try:
            meta = json.loads(text)
            for name, kind in REQUIRED_META.items():
                if not isinstance(meta.get(name), kind if kind is not float else (int, float)):
                    raise TypeError(f"{name} is {meta.get(name)!r}")
            path = Path(meta["path"])
            if not path.is_absolute():
                raise ValueError(f"the path {path} is not absolute")
            path = folder / path.relative_to(location) if path.is_relative_to(location) else path
            if path.suffix not in SUFFIXES:
                raise ValueError(f"the scanner does not know {path.suffix}")
            if meta.get("weight") is not None and not meta["weight"] > 0:
                raise ValueError(f"weight {meta['weight']} stops the sampler")
            length_s = soundfile.info(path).duration
            if abs(length_s - meta["duration"]) > 0.01:
                raise ValueError(f"{path.name} lasts {length_s:.3f} s, the manifest says {meta['duration']}")
            _check_tags(path.with_suffix(".json"))
        except (ValueError, TypeError, KeyError, OSError, soundfile.LibsndfileError) as error:
            reading.lose(f"line {number}", error)
        else:
            reading.rows_out += 1
    return reading


def _check_tags(sidecar: Path) -> None:
    if not sidecar.is_file():
        raise ValueError(f"{sidecar.name} is not there: the clip would train without its text")
    found = json.loads(sidecar.read_text(encoding="utf-8"))
    for name in REQUIRED_TAGS:
        if name not in found:
            raise KeyError(f"Unexpected missing key: {name}")
    bpm = found["bpm"]
    if isinstance(bpm, list) or (isinstance(bpm, float) and bpm != bpm):
        raise TypeError(f"bpm {bpm} is no number")
    if bpm is not None and not isinstance(bpm, int | float):
        float(bpm)
    if found["key"] is not None and "," in found["key"]:
        raise ValueError(f"the key {found['key']!r} has a comma and becomes none")
    for name in ("title", "artist", "description", "genre", "name", "instrument"):
        if not isinstance(found[name], str | None):
            raise TypeError(f"{name} is no text and becomes none")
    if not found["description"]:
        raise ValueError("no description: the clip would train without its text")
    if not isinstance(found["moods"], list | None):
        raise TypeError("moods is a text, which is split at every space")


if __name__ == "__main__":  # the command that the cards of earlier versions name
    from keeptake.formats.relocate import main

    sys.exit(main(sys.argv[1:]))
