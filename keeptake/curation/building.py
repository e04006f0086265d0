"""The files of a version, from its rows and stored audio alone: that is why a rebuild gives equal bytes.

Conventions: everything that a file says comes from `lineage/rows.parquet` and `lineage/lineage.json` beside it, and from the
audio. A stage whose rows are there has all of its clips; the other steps may be repeated in any order.

Belongs here: which formats a version has, writing them into a folder, doing it again elsewhere. Does not: choosing the rows,
making a folder visible (`publish.py`), a format's own rules (`keeptake/formats/`).
"""

import errno
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from keeptake.curation.policy import Policy, read_policy
from keeptake.curation.versions import ROWS_VERSION, complete, read_lineage
from keeptake.errors import BusyError, ConfigurationError, KeeptakeError, PublicationError, UnavailableError
from keeptake.formats import (
    ace_step,
    audiocraft,
    audiofolder,
    card,
    clips,
    croissant,
    hf_parquet,
    manifest,
    originals,
    stable_audio,
    webdataset,
)
from keeptake.formats.sidecars import write_json
from keeptake.stage import Progress, silent

ReadAudio = Callable[[str], bytes]

STAGED = ".staged"
TOO_QUIET = "too-quiet"
FORMAT_VERSIONS = {
    "rows": ROWS_VERSION,
    "clips": clips.CLIPS_VERSION,
    "audiocraft": audiocraft.AUDIOCRAFT_VERSION,
    "audiofolder": audiofolder.AUDIOFOLDER_VERSION,
    "parquet": hf_parquet.HF_PARQUET_VERSION,
    "webdataset": webdataset.WEBDATASET_VERSION,
    "ace-step": ace_step.ACE_STEP_VERSION,
    "stable-audio": stable_audio.STABLE_AUDIO_VERSION,
    "croissant": croissant.CROISSANT_VERSION,
    "originals": originals.ORIGINALS_VERSION,
    "card": card.CARD_VERSION,
    "manifest": manifest.MANIFEST_VERSION,
}


@dataclass(frozen=True)
class Stage:
    """A version on its way, or one that is already visible.

    Attributes
    ----------
    name, version : str
    folder : Path
        Where its files are: aside, or in the visible place where `is_new` is false.
    location : Path
        Its visible place.
    is_new : bool
        Whether anything remains to be published.
    """

    name: str
    version: str
    folder: Path
    location: Path
    is_new: bool

    @property
    def rows(self) -> pl.DataFrame:
        """Rows of the version, with what was measured of each written clip: `frames` and `loudness_lufs`."""
        return complete(pl.read_parquet(self.folder / "lineage" / "rows.parquet"))

    @property
    def lineage(self) -> dict[str, Any]:
        """What the version was made from and by, with its counts."""
        return read_lineage(self.folder)

    @property
    def policy(self) -> Policy:
        """Policy that the version was made by."""
        return read_policy(self.lineage["policy"], origin=f"{self.name}/{self.version}")


def staged(datasets_dir: Path, name: str) -> Stage | None:
    """Find the version of a dataset that stands aside, written by an earlier step; None where there is none."""
    home = datasets_dir.resolve() / name
    for folder in sorted((home / STAGED).glob("v*-*")):
        if (folder / "lineage" / "rows.parquet").is_file():
            return Stage(name, folder.name, folder, home / folder.name, is_new=True)
    return None


def write_audio(
    stage: Stage,
    rows: pl.DataFrame,
    lineage: Mapping[str, Any],
    read_audio: ReadAudio,
    *,
    progress: Progress = silent,
    threads: int = 2,
) -> None:
    """Write the clips, and then the rows whose clips can be heard, as measured: a stage with rows has all of its audio."""
    policy = read_policy(dict(lineage["policy"]), origin=stage.version)
    for split in rows["split"].unique():
        (stage.folder / split).mkdir(exist_ok=True)
        if policy.audio.has_master:
            (stage.folder / clips.MASTERS / split).mkdir(parents=True, exist_ok=True)
    takes = [part for _, part in rows.sort("audio_sha256", "id").group_by("audio_sha256", maintain_order=True)]
    written: list[clips.ClipWritten] = []

    def write(part: pl.DataFrame) -> list[clips.ClipWritten]:
        return _write_take(stage.folder, part, policy, read_audio)

    with ThreadPoolExecutor(threads) as pool:  # decoding, resampling and encoding let go of the interpreter
        for done, found in enumerate(pool.map(write, takes), start=1):
            written.extend(found)
            progress("clips", done, len(takes))
    measured = {"id": pl.String, "frames": pl.Int64, "peak": pl.Float64, "loudness_lufs": pl.Float64}
    audible = pl.DataFrame(written, schema=measured, orient="row").filter(pl.col("peak") >= clips.MIN_PEAK)
    final = rows.join(audible, on="id", how="inner").sort("id")
    if final.is_empty():
        raise PublicationError(
            "every clip is quieter than -60 dB: look at the takes that the policy keeps, and tighten its defects"
        )
    silent_takes = rows["parent"].n_unique() - final["parent"].n_unique()
    left_out = dict(lineage["left_out"]) | ({TOO_QUIET: silent_takes} if silent_takes else {})
    counts = dict(lineage["counts"]) | {"kept": lineage["counts"]["kept"] - silent_takes}
    for split in set(rows["split"]) - set(final["split"]):
        shutil.rmtree(stage.folder / split)
        shutil.rmtree(stage.folder / clips.MASTERS / split, ignore_errors=True)
    (stage.folder / "lineage").mkdir(exist_ok=True)
    write_json(stage.folder / "lineage" / "lineage.json", {**lineage, "left_out": left_out, "counts": counts})
    final.drop("peak").write_parquet(stage.folder / "lineage" / "rows.partial", statistics=False)
    (stage.folder / "lineage" / "rows.partial").replace(stage.folder / "lineage" / "rows.parquet")


def _write_take(folder: Path, part: pl.DataFrame, policy: Policy, read_audio: ReadAudio) -> list[clips.ClipWritten]:
    wanted = []
    for row in part.iter_rows(named=True):
        wanted.append(
            clips.ClipWanted(
                row["id"],
                folder / row["split"] / f"{row['id']}.flac",
                row["start_s"],
                row["end_s"],
                policy.audio.loudness_lufs,
                folder / clips.MASTERS / row["split"] / f"{row['id']}.flac" if policy.audio.has_master else None,
            )
        )
    sha256, generation_id = part["audio_sha256"][0], part["generation_id"][0]
    try:
        return clips.write_clips(read_audio(sha256), wanted, policy.audio.sample_rate_hz)
    except (ConfigurationError, UnavailableError):  # of the store as a whole: no fault of this take
        raise
    except (KeeptakeError, FileNotFoundError) as error:
        raise PublicationError(
            f"the audio of {generation_id} ({sha256[:12]}…) cannot be read: {error}; fetch it again, or leave it out; "
            "nothing was published"
        ) from error


def write_jsonl(stage: Stage) -> None:
    """Write sidecars, manifests, metadata, the original JSONL export, and what other trainers read beside them."""
    if not stage.is_new:
        return
    rows, policy = stage.rows, stage.policy
    with named_failures(stage.folder):
        audiocraft.write(stage.folder, rows, location=stage.location, sample_rate_hz=policy.audio.sample_rate_hz)
        audiofolder.write(stage.folder, rows, sample_rate_hz=policy.audio.sample_rate_hz)
        originals.write_jsonl(stage.folder, rows)
        if policy.formats.has_webdataset:
            webdataset.write(stage.folder, rows, sample_rate_hz=policy.audio.sample_rate_hz)
        if policy.formats.has_ace_step:
            ace_step.write(stage.folder, rows, name=stage.name, location=stage.location, has_master=policy.audio.has_master)
        if policy.formats.has_stable_audio:
            stable_audio.write(stage.folder, location=stage.location, has_master=policy.audio.has_master)


def write_parquet(stage: Stage) -> None:
    """Write the Parquet shards with embedded audio and the original exports' rows as Parquet."""
    if not stage.is_new:
        return
    with named_failures(stage.folder):
        originals.write_parquet(stage.folder, stage.rows)
        if stage.policy.formats.has_parquet:
            hf_parquet.write(stage.folder, stage.rows, sample_rate_hz=stage.policy.audio.sample_rate_hz)


def write_csv(stage: Stage) -> None:
    """Write the original CSV export."""
    if stage.is_new:
        with named_failures(stage.folder):
            originals.write_csv(stage.folder, stage.rows)


def finish(stage: Stage) -> str:
    """Write what speaks of all the other files: card, Croissant, manifest; returns the manifest's SHA-256."""
    rows, lineage = stage.rows, stage.lineage
    card.write(stage.folder, rows, lineage)
    if stage.policy.formats.has_croissant:
        croissant.write(stage.folder, rows, lineage)
    hashes = dict(rows.select("id", "row_sha256").iter_rows())
    about = {name: lineage[name] for name in ("name", "version", "formats", "features_versions", "made_with")}
    return manifest.write(stage.folder, about={**about, "rows": card.split_counts(rows)}, row_hashes=hashes)


def rebuild(folder: Path, to: Path, *, read_audio: ReadAudio, threads: int = 2, progress: Progress = silent) -> list[str]:
    """Build a published version anew from its rows and stored audio, and compare.

    Parameters
    ----------
    folder : Path
        The published version.
    to : Path
        An empty or missing folder for the copy.

    Returns
    -------
    list of str
        What differs from the published manifest; nothing where every byte is the same.
    """
    promised = manifest.read(folder)
    if to.exists() and any(to.iterdir()):
        raise PublicationError(f"{to} is not empty: name a folder that is not there yet")
    to.mkdir(parents=True, exist_ok=True)
    old = Stage(promised["name"], promised["version"], folder, folder, is_new=False)
    lineage = old.lineage
    stage = Stage(old.name, old.version, to, Path(lineage["location"]), is_new=True)
    with named_failures(to):
        write_audio(stage, old.rows.drop("frames", "loudness_lufs"), lineage, read_audio, progress=progress, threads=threads)
        write_jsonl(stage)
        write_parquet(stage)
        write_csv(stage)
        finish(stage)
    found = manifest.listed(to)
    names = sorted({*promised["files"], *found})
    return [f"{name} differs" for name in names if promised["files"].get(name) != found.get(name)]


@contextmanager
def named_failures(folder: Path) -> Iterator[None]:
    """Say in one sentence what to do where the disk fails, or somebody else has removed the folder to begin anew."""
    try:
        yield
    except OSError as error:
        if not folder.exists():
            raise BusyError("another publication of this dataset began and took over: look at its run; this one ends") from error
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG):
            raise
        what = "is full" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "cannot be written"
        raise PublicationError(
            f"the disk of {folder} {what} ({error.strerror}): make room, then publish again; nothing was published"
        ) from error
