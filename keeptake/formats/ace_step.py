"""ACE-Step 1.5: one JSON a split, for clips with or without voices.

Conventions: rules as observed at f30aee4: ids of eight characters, whole seconds, `bpm` an integer or null, `timesignature` empty
where it is not known, `lyrics` never empty. Lyrics are not kept by the ledger for takes with voices, so those say so. The trainer
takes songs with voices in full, at 48 kHz and in stereo: it resamples what it is given, and doubles a single channel. So paths
lead to the masters, where the policy has them; they are clips as well, cut as the policy says. Belongs here: the JSON. Does not:
the clips.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from keeptake.formats.audiocraft import by_split
from keeptake.formats.clips import MASTERS, finest_folder
from keeptake.formats.readers import Reading
from keeptake.formats.sidecars import write_json

ACE_STEP_VERSION = "2"  # 2: masters, where there are any; no meter that was not heard
FOLDER = "ace_step"
INSTRUMENTAL = "[Instrumental]"
REQUIRED = {"id": str, "audio_path": str, "caption": str, "lyrics": str, "duration": int, "is_instrumental": bool}


def write(folder: Path, rows: pl.DataFrame, *, name: str, location: Path, has_master: bool) -> None:
    """Write the JSON of each split that has rows.

    Parameters
    ----------
    folder : Path
        Where the files are written.
    rows : pl.DataFrame
        The version's rows.
    name : str
        The dataset's.
    location : Path
        Where the folder will lie once it is published.
    has_master : bool
        Whether the version has masters, which the trainer then reads.
    """
    (folder / FOLDER).mkdir(exist_ok=True)
    for split, split_rows in by_split(rows):
        audio = location / finest_folder(split, has_master=has_master)
        samples = [sample(row, audio) for row in split_rows.iter_rows(named=True)]
        about = {
            "name": name,
            "custom_tag": "",
            "tag_position": "prepend",
            "created_at": "",
            "num_samples": len(samples),
            "all_instrumental": all(found["is_instrumental"] for found in samples),
            "genre_ratio": 0,
        }
        write_json(folder / FOLDER / f"{split}.json", {"metadata": about, "samples": samples})


def sample(row: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Describe a clip whose audio lies in `folder`."""
    lyrics = INSTRUMENTAL if row["has_vocals"] is False else "[Vocals]"
    return {
        "id": row["row_sha256"][:8],
        "audio_path": str(folder / f"{row['id']}.flac"),
        "filename": f"{row['id']}.flac",
        "caption": row["text"],
        "genre": row["genre"] or "",
        "lyrics": lyrics,
        "raw_lyrics": "",
        "formatted_lyrics": "",
        "bpm": None if row["tempo_bpm"] is None else round(row["tempo_bpm"]),
        "keyscale": row["key"] or "",
        "timesignature": str(row["beats_per_bar"] or ""),
        "duration": round(row["duration_s"]),
        "language": "unknown",
        "is_instrumental": row["has_vocals"] is False,
        "custom_tag": "",
        "labeled": True,
        "prompt_override": None,
    }


def read_back(folder: Path, split: str, *, rows_in: int, location: Path) -> Reading:
    """Read a split's JSON by the documented rules."""
    reading = Reading("ace-step", split, "documented rules of ACE-Step 1.5 f30aee4", rows_in=rows_in)
    try:
        samples = json.loads((folder / FOLDER / f"{split}.json").read_text(encoding="utf-8"))["samples"]
    except (OSError, ValueError, KeyError) as error:
        return reading.fail(error)
    finest = location / finest_folder(split, has_master=(folder / MASTERS / split).is_dir())
    for found in samples:
        wrong = [name for name, kind in REQUIRED.items() if type(found.get(name)) is not kind]
        path = Path(str(found.get("audio_path")))
        is_there = path.parent == finest and (folder / path.relative_to(location)).is_file()
        if wrong or not is_there or not found["caption"] or not found["lyrics"]:
            reading.lose(
                str(found.get("filename")), f"{', '.join(wrong) or 'audio, caption or lyrics'} missing or of a wrong type"
            )
        else:
            reading.rows_out += 1
    if len(samples) != rows_in:
        reading.lose("all", f"{len(samples)} rows of {rows_in} are read")
    return reading
