"""From a policy to a visible version: staged aside, proved by its readers, made visible by one rename.

Conventions: a version is built in `DATASETS/NAME/.staged/VERSION`, and becomes `DATASETS/NAME/VERSION` in one step with its
manifest inside; killed anywhere before that, nothing is visible, and the next attempt starts over. Everything that a file of a
version says comes from `lineage/rows.parquet` and `lineage/lineage.json` in it, and from stored audio: that is why a rebuild
gives equal bytes.

The steps are functions of their own, so that each can be a step of a run: `stage_version` (choose, cut, write audio),
`write_jsonl`,
`write_parquet`, `write_csv`, `publish_staged` (leaks, card, gate, manifest, rename, ledger); `publish` does them all.

Belongs here: the order of things, and what happens when one fails. Does not: formats (`keeptake/formats/`), choosing
(`select.py`).
"""

import errno
import importlib.metadata
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from keeptake.curation.leaks import alike, find_leaks
from keeptake.curation.policy import Policy, read_policy
from keeptake.curation.select import Selection, choose
from keeptake.curation.versions import ROWS_VERSION, content_hash, ordinal_of, plan_rows, read_lineage
from keeptake.datasets import visible
from keeptake.errors import KeeptakeError, PublicationError
from keeptake.formats import (
    ace_step,
    audiocraft,
    audiofolder,
    card,
    clips,
    croissant,
    figures,
    hf_parquet,
    manifest,
    originals,
    stable_audio,
    webdataset,
)
from keeptake.formats.gate import GateReport, inspect
from keeptake.formats.sidecars import write_json
from keeptake.ledger import datasets
from keeptake.ledger.connection import Ledger

ReadAudio = Callable[[str], bytes]
Progress = Callable[[str, int, int], None]

STAGED = ".staged"
MASTERS = "masters"
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
_MADE_WITH = ("polars", "pyarrow", "soundfile", "soxr", "numpy", "matplotlib")


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
        """Rows of the version, with the length of each clip in `frames`."""
        return pl.read_parquet(self.folder / "lineage" / "rows.parquet")

    @property
    def lineage(self) -> dict[str, Any]:
        """What the version was made from and by, with its counts."""
        return read_lineage(self.folder)

    @property
    def policy(self) -> Policy:
        """Policy that the version was made by."""
        return read_policy(self.lineage["policy"], origin=f"{self.name}/{self.version}")


@dataclass(frozen=True)
class Published:
    """A visible version."""

    name: str
    version: str
    path: Path
    rows: dict[str, int]
    is_new: bool
    left_out: dict[str, int]
    gate: list[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """What `keeptake publish --json` prints."""
        return {"name": self.name, "version": self.version, "path": str(self.path), "rows": self.rows, "is_new": self.is_new}


def silent(stage: str, done: int, total: int) -> None:
    """Report progress to nobody."""


def curate(ledger: Ledger, policy: Policy) -> Selection:
    """Choose the takes of a dataset and store what the policy says of every take."""
    candidates = datasets.candidates(ledger, policy.select.formula)
    previous = datasets.published_rows(ledger, policy.name)
    pairs = pl.concat([datasets.duplicate_audio(ledger), alike(datasets.vectors(ledger))]).unique(maintain_order=True)
    selection = choose(candidates, policy, pairs=pairs, previous=previous)
    datasets.save_selection(ledger, policy.name, selection)
    return selection


def publish(
    ledger: Ledger,
    policy: Policy,
    *,
    read_audio: ReadAudio,
    datasets_dir: Path,
    pseudonym_key: str,
    progress: Progress = silent,
    threads: int = 2,
) -> Published:
    """Publish a version of a dataset, or find that the present one already says the same.

    Raises
    ------
    PublicationError
        If nothing was chosen, audio is missing, the disk is full, rows leak, or a reader would lose a row: nothing becomes
        visible.
    BusyError
        If somebody else publishes this dataset.
    """
    stage = stage_version(
        ledger,
        policy,
        read_audio=read_audio,
        datasets_dir=datasets_dir,
        pseudonym_key=pseudonym_key,
        progress=progress,
        threads=threads,
    )
    write_jsonl(stage)
    write_parquet(stage)
    write_csv(stage)
    return publish_staged(ledger, stage)


def stage_version(
    ledger: Ledger,
    policy: Policy,
    *,
    read_audio: ReadAudio,
    datasets_dir: Path,
    pseudonym_key: str,
    progress: Progress = silent,
    threads: int = 2,
) -> Stage:
    """Choose takes, plan rows, and write their audio aside; what an earlier attempt left there is removed."""
    with ledger.claim(f"publishing {policy.name}"), _named_failures(datasets_dir):
        selection = curate(ledger, policy)
        home = datasets_dir.resolve() / policy.name
        shutil.rmtree(home / STAGED, ignore_errors=True)
        takes = datasets.kept_takes(ledger, policy.name, policy.select.formula)
        if takes.is_empty():
            raise PublicationError(_nothing_chosen(policy, selection))
        heard = datasets.heard_over_time(ledger, policy.name)
        rows, scrubbed = plan_rows(takes, heard, policy, pseudonym_key=pseudonym_key)
        if rows.is_empty():
            raise PublicationError(f"the policy {policy.name} keeps {takes.height} takes, but no clip of the length it asks for")
        digest = content_hash(rows, policy, FORMAT_VERSIONS)
        present = _present(ledger, policy.name, home, digest)
        if present is not None:
            return present
        version = _next_version(ledger, policy.name, home, digest)
        lineage = {
            "name": policy.name,
            "version": version,
            "location": str(home / version),
            "policy": policy.model_dump(mode="json"),
            "formats": FORMAT_VERSIONS,
            "features_versions": sorted(takes["features_versions"].drop_nulls().unique().to_list()),
            "scaler": datasets.current_scaler(ledger),
            "counts": {"candidates": selection.kept.height + selection.left_out.height, "kept": selection.kept.height},
            "left_out": selection.reasons(),
            "gone": _gone(ledger, policy.name, selection),
            "scrubbed": dict(sorted(scrubbed.items())),
            "score_histogram": figures.binned(datasets.scores(ledger, policy.select.formula).to_list()),
            "made_with": {name: importlib.metadata.version(name) for name in _MADE_WITH},
        }
        stage = Stage(policy.name, version, home / STAGED / version, home / version, is_new=True)
        stage.folder.mkdir(parents=True)
        write_audio(stage, rows, lineage, read_audio, progress=progress, threads=threads)
        silent_takes = sorted(set(rows["generation_id"]) - set(stage.rows["generation_id"]))
        datasets.leave_out(ledger, policy.name, silent_takes, TOO_QUIET, "every clip of it is quieter than -60 dB")
        return stage


def _gone(ledger: Ledger, name: str, selection: Selection) -> dict[str, str]:
    """Takes that stood in an earlier version and are left out of this one, with the reason: what a diff tells of them."""
    published = datasets.published_rows(ledger, name).select("generation")
    told = selection.left_out.join(published.unique(), on="generation", how="semi").sort("generation_id")
    return dict(told.select("generation_id", "reason").iter_rows())


def _present(ledger: Ledger, name: str, home: Path, digest: str) -> Stage | None:
    """Find the visible version that says the same; one that the ledger does not know (we were killed) is recorded."""
    known = [row["version"] for row in datasets.versions(ledger, name)]
    for version in visible(home)[::-1]:
        if version.endswith(f"-{digest}"):
            stage = Stage(name, version, home / version, home / version, is_new=False)
            if version not in known:
                record(ledger, stage)
            return stage
    return None


def _next_version(ledger: Ledger, name: str, home: Path, digest: str) -> str:
    known = [row["version"] for row in datasets.versions(ledger, name)]
    ordinal = 1 + max([0, *(ordinal_of(version) for version in (*known, *visible(home)))])
    return f"v{ordinal}-{digest}"


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
    """Write the clips, and then the rows whose clips can be heard, with their lengths: a stage with rows has all of its audio."""
    policy = read_policy(dict(lineage["policy"]), origin=stage.version)
    for split in rows["split"].unique():
        (stage.folder / split).mkdir(exist_ok=True)
        if policy.audio.has_master:
            (stage.folder / MASTERS / split).mkdir(parents=True, exist_ok=True)
    takes = [part for _, part in rows.sort("audio_sha256", "id").group_by("audio_sha256", maintain_order=True)]
    written: list[clips.ClipWritten] = []

    def write(part: pl.DataFrame) -> list[clips.ClipWritten]:
        return _write_take(stage.folder, part, policy, read_audio)

    with ThreadPoolExecutor(threads) as pool:  # decoding, resampling and encoding let go of the interpreter
        for done, found in enumerate(pool.map(write, takes), start=1):
            written.extend(found)
            progress("clips", done, len(takes))
    lengths = pl.DataFrame(written, schema={"id": pl.String, "frames": pl.Int64, "peak": pl.Float64}, orient="row")
    audible = lengths.filter(pl.col("peak") >= clips.MIN_PEAK)
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
    (stage.folder / "lineage").mkdir(exist_ok=True)
    write_json(stage.folder / "lineage" / "lineage.json", {**lineage, "left_out": left_out, "counts": counts})
    final.drop("peak").write_parquet(stage.folder / "lineage" / "rows.partial", statistics=False)
    (stage.folder / "lineage" / "rows.partial").replace(stage.folder / "lineage" / "rows.parquet")


def _write_take(folder: Path, part: pl.DataFrame, policy: Policy, read_audio: ReadAudio) -> list[clips.ClipWritten]:
    wanted = []
    for row in part.iter_rows(named=True):
        target_lufs, own_lufs = policy.audio.loudness_lufs, row["loudness_lufs"]
        wanted.append(
            clips.ClipWanted(
                row["id"],
                folder / row["split"] / f"{row['id']}.flac",
                row["start_s"],
                row["end_s"],
                0.0 if target_lufs is None or own_lufs is None else target_lufs - own_lufs,
                folder / MASTERS / row["split"] / f"{row['id']}.flac" if policy.audio.has_master else None,
            )
        )
    sha256, generation_id = part["audio_sha256"][0], part["generation_id"][0]
    try:
        return clips.write_clips(read_audio(sha256), wanted, policy.audio.sample_rate_hz)
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
    with _named_failures(stage.folder):
        audiocraft.write(stage.folder, rows, location=stage.location, sample_rate_hz=policy.audio.sample_rate_hz)
        audiofolder.write(stage.folder, rows, sample_rate_hz=policy.audio.sample_rate_hz)
        originals.write_jsonl(stage.folder, rows)
        if policy.formats.has_webdataset:
            webdataset.write(stage.folder, rows, sample_rate_hz=policy.audio.sample_rate_hz)
        if policy.formats.has_ace_step:
            ace_step.write(stage.folder, rows, name=stage.name, location=stage.location)
        if policy.formats.has_stable_audio:
            stable_audio.write(stage.folder, location=stage.location)


def write_parquet(stage: Stage) -> None:
    """Write the Parquet shards with embedded audio and the original exports' rows as Parquet."""
    if not stage.is_new:
        return
    with _named_failures(stage.folder):
        originals.write_parquet(stage.folder, stage.rows)
        if stage.policy.formats.has_parquet:
            hf_parquet.write(stage.folder, stage.rows, sample_rate_hz=stage.policy.audio.sample_rate_hz)


def write_csv(stage: Stage) -> None:
    """Write the original CSV export."""
    if stage.is_new:
        with _named_failures(stage.folder):
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


def publish_staged(ledger: Ledger, stage: Stage, *, packages: bool = True) -> Published:
    """Prove a staged version, make it visible by one rename, and record it; a version that is visible already is returned.

    Raises
    ------
    PublicationError
        If rows leak between splits or a reader would lose a row: the version stays aside, the present one stays what it was.
    """
    if not stage.is_new:
        return _published(stage, gate=[])
    with ledger.claim(f"publishing {stage.name}"), _named_failures(stage.folder):
        check_leaks(ledger, stage)
        finish(stage)
        report = inspect(stage.folder, location=stage.location, packages=packages)
        if not report.is_passed:
            raise PublicationError(_refused(stage, report))
        os.sync()
        stage.folder.replace(stage.location)
        shown = Stage(stage.name, stage.version, stage.location, stage.location, is_new=True)
        record(ledger, shown, gate=report.table())
        shutil.rmtree(stage.location.parent / STAGED, ignore_errors=True)
    return _published(shown, gate=report.table())


def check_leaks(ledger: Ledger, stage: Stage) -> None:
    """Look once more whether anything of the rows stands in two splits."""
    rows = stage.rows
    keys = datasets.prompt_keys(ledger, stage.name)
    vectors = datasets.vectors(ledger)
    found = find_leaks(
        rows,
        datasets.duplicate_audio(ledger),
        prompt_keys=keys,
        hold_out_users=stage.policy.splits.hold_out_users,
        vectors=vectors,
    )
    if not found.is_empty():
        kinds = ", ".join(f"{count} {kind}" for kind, count in found.group_by("kind").len().sort("kind").iter_rows())
        first = found.row(0, named=True)
        raise PublicationError(
            f"{stage.name}/{stage.version} leaks between splits ({kinds}), such as {first['first']} and {first['second']} in "
            f"{first['splits']}: run the duplicates step again, then publish; nothing was published"
        )


def record(ledger: Ledger, stage: Stage, gate: list[dict[str, Any]] | None = None) -> None:
    """Write a visible version into the ledger; doing it twice changes nothing."""
    lineage, rows = stage.lineage, stage.rows
    version = {
        "name": stage.name,
        "version": stage.version,
        "ordinal": ordinal_of(stage.version),
        "policy": lineage["policy"],
        "lineage": {name: value for name, value in lineage.items() if name != "policy"} | {"gate": gate or []},
        "path": str(stage.location),
        "manifest_sha256": manifest.sha256_of(stage.location / manifest.MANIFEST),
        "row_count": rows.height,
    }
    columns = ("generation_id", "audio_sha256", "split", "group_id", "row_sha256")
    datasets.record_version(ledger, version, rows.select(*columns, row_id="id").iter_rows(named=True))


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
    with _named_failures(to):
        write_audio(stage, old.rows.drop("frames"), lineage, read_audio, progress=progress, threads=threads)
        write_jsonl(stage)
        write_parquet(stage)
        write_csv(stage)
        finish(stage)
    found = manifest.listed(to)
    names = sorted({*promised["files"], *found})
    return [f"{name} differs" for name in names if promised["files"].get(name) != found.get(name)]


def _published(stage: Stage, gate: list[dict[str, Any]]) -> Published:
    rows, left_out = card.split_counts(stage.rows), stage.lineage["left_out"]
    return Published(stage.name, stage.version, stage.location, rows, stage.is_new, left_out, gate)


def _nothing_chosen(policy: Policy, selection: Selection) -> str:
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in selection.reasons().items()) or "the ledger holds no takes"
    return f"the policy {policy.name} keeps no take ({reasons}): loosen policies/{policy.name}.toml or run the pending work first"


def _refused(stage: Stage, report: GateReport) -> str:
    problems = report.problems()
    more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
    return (
        f"{stage.name}/{stage.version} was not published, as readers would lose rows: {'; '.join(problems[:3])}{more}; "
        f"it lies in {stage.folder} for a look, and the present version stays"
    )


@contextmanager
def _named_failures(folder: Path) -> Iterator[None]:
    """Say in one sentence what to do where the disk fails."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG):
            raise
        what = "is full" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "cannot be written"
        raise PublicationError(
            f"the disk of {folder} {what} ({error.strerror}): make room, then publish again; nothing was published"
        ) from error
