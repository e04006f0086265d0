"""The acceptance gate: every reader must be able to read a version, whole.

Conventions: every reader gives a `Reading` a split: rows in, rows that survive, why not. The real packages run where they are
installed; the documented rules always run. A version passes if nothing is lost anywhere. Belongs here: which readers a version
must please. Does not: their rules (each stands in its format's file), deciding what happens to a version that fails
(`publish.py`).
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from keeptake.formats import ace_step, audiocraft, audiofolder, hf_parquet, hugging_face, originals, stable_audio, webdataset
from keeptake.formats.clips import MIN_PEAK
from keeptake.formats.readers import Reading
from keeptake.formats.sidecars import SPLITS
from keeptake.stage import Progress, silent

FILES_OF = {
    "has_parquet": hf_parquet.FOLDER,
    "has_webdataset": webdataset.FOLDER,
    "has_ace_step": ace_step.FOLDER,
    "has_stable_audio": stable_audio.CONFIG,
}
ID = re.compile(r"[a-z0-9_-]+")


@dataclass(frozen=True)
class GateReport:
    """What all readers said."""

    readings: list[Reading]

    @property
    def is_passed(self) -> bool:
        """Whether no reader loses a row."""
        return all(reading.is_whole for reading in self.readings)

    def problems(self) -> list[str]:
        """One sentence a reader, split and cause, such as `audiocraft, train: … (line 3)`."""
        return [
            f"{reading.reader}, {reading.split}: {why} ({', '.join(examples)})"
            for reading in self.readings
            for why, examples in reading.losses.items()
        ]

    def table(self) -> list[dict[str, Any]]:
        """Rows for a person: reader, split, how it was asked, rows in, rows that survive, losses."""
        return [
            {
                "reader": reading.reader,
                "split": reading.split,
                "asked": reading.source,
                "rows_in": reading.rows_in,
                "rows_out": reading.rows_out,
                "losses": "; ".join(reading.losses),
            }
            for reading in self.readings
        ]


def inspect(folder: Path, *, location: Path | None = None, packages: bool = True, progress: Progress = silent) -> GateReport:
    """Read a version with every reader that it was written for.

    Parameters
    ----------
    folder : Path
        The version's files, published or still aside.
    location : Path, optional
        Where they will lie once published; by default where they are.
    packages : bool
        Run the installed `datasets` and `webdataset` as well; without them the documented rules alone are asked.
    """
    location = (location or folder).resolve()
    rows = expected(folder)
    counts = {split: rows.filter(pl.col("split") == split).height for split in SPLITS}
    splits = [split for split in SPLITS if counts[split]]
    readings = []
    for done, split in enumerate(splits, start=1):
        progress("decoding every clip", done - 1, len(splits))
        readings.append(clips(folder, rows, split))
        progress("decoding every clip", done, len(splits))
    readings.extend(unwritten(folder, counts))
    for done, split in enumerate(splits, start=1):
        progress("reading by the trainers' rules", done - 1, len(splits))
        readings.extend(_by_rules(folder, split, counts[split], location))
        progress("reading by the trainers' rules", done, len(splits))
    if packages and hugging_face.is_installed():
        progress("reading by datasets and webdataset", 0, 1)
        readings.extend(hugging_face.read_back(folder, counts))
        progress("reading by datasets and webdataset", 1, 1)
    for reading in readings:
        if reading.rows_in != counts[reading.split]:
            reading.lose("all", f"{reading.rows_in} rows are there, {counts[reading.split]} were meant to be")
    return GateReport(readings)


def _by_rules(folder: Path, split: str, count: int, location: Path) -> Iterator[Reading]:
    yield audiocraft.read_back(folder, split, location=location)
    yield audiofolder.read_back(folder, split)
    if (folder / hf_parquet.FOLDER).is_dir():
        yield hf_parquet.read_back(folder, split, rows_in=count)
    if (folder / webdataset.FOLDER).is_dir():
        yield webdataset.read_back(folder, split, rows_in=count)
    if (folder / stable_audio.CONFIG).is_file():
        yield stable_audio.read_back(folder, split, rows_in=count, location=location)
    if (folder / ace_step.FOLDER).is_dir():
        yield ace_step.read_back(folder, split, rows_in=count, location=location)


def unwritten(folder: Path, counts: Mapping[str, int]) -> Iterator[Reading]:
    """What the policy asks for and nobody wrote: a reading a split that loses all of its rows; none where all is there."""
    formats = json.loads((folder / "lineage" / "lineage.json").read_text(encoding="utf-8"))["policy"]["formats"]
    wanted = [f"{originals.FOLDER}/export.{end}" for end in ("jsonl", "csv", "parquet")]
    wanted += [name for asked, name in FILES_OF.items() if formats[asked]]
    missing = [name for name in wanted if not (folder / name).exists()]
    for split, count in counts.items():
        if missing and count:
            reading = Reading("files", split, "looked for", rows_in=count)
            for name in missing:
                reading.lose(name, f"{name} was not written")
            yield reading


def expected(folder: Path) -> pl.DataFrame:
    """Rows that the version was made of."""
    return pl.read_parquet(folder / "lineage" / "rows.parquet")


def clips(folder: Path, rows: pl.DataFrame, split: str) -> Reading:
    """Decode every clip of a split: it must be there, whole, loud enough and of the promised length."""
    import numpy as np
    import soundfile

    reading = Reading("clips", split, "decoded in full")
    lineage = json.loads((folder / "lineage" / "lineage.json").read_text(encoding="utf-8"))
    wanted_rate_hz = lineage["policy"]["audio"]["sample_rate_hz"]
    for row in rows.filter(pl.col("split") == split).iter_rows(named=True):
        reading.rows_in += 1
        try:
            if not ID.fullmatch(row["id"]):
                raise ValueError(f"the id {row['id']!r} is not of a-z 0-9 _ -: readers cut names at dots")
            samples, rate_hz = soundfile.read(folder / split / f"{row['id']}.flac", dtype="float32", always_2d=True)
            if rate_hz != wanted_rate_hz:
                raise ValueError(f"{rate_hz} Hz, the policy says {wanted_rate_hz}")
            if len(samples) != row["frames"]:
                raise ValueError(f"{len(samples)} samples, {row['frames']} were written")
            peak = float(np.abs(samples).max(initial=0.0))
            if peak < MIN_PEAK:
                raise ValueError("quieter than -60 dB: stable-audio-tools skips it, and recurses for ever where all are")
        except (ValueError, OSError, soundfile.LibsndfileError) as error:
            reading.lose(row["id"], error)
        else:
            reading.rows_out += 1
    return reading
