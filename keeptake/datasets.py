"""Published datasets for Python users: found by name, as a Polars frame, a torch Dataset, or a path.

    >>> clips = load("musicgen-instrumental", split="train")          # doctest: +SKIP

Conventions: versions are named `vN-HASH`; without one the newest is meant; folders are those of the settings unless given. What
this module reads are published files alone: it needs no ledger. Belongs here: reading. Does not: publishing
(`keeptake/curation/publish.py`).
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, overload

import polars as pl

from keeptake.curation import versions
from keeptake.errors import ConfigurationError
from keeptake.formats import manifest
from keeptake.formats.sidecars import SPLITS
from keeptake.settings import settings

if TYPE_CHECKING:
    import torch
    from torch.utils.data import Dataset

Split = Literal["train", "valid", "test"]
Version = str | int
KINDS = ("frame", "path", "torch")


@overload
def load(
    name: str,
    *,
    version: Version | None = None,
    split: Split | None = None,
    kind: Literal["frame"] = "frame",
    datasets_dir: Path | str | None = None,
) -> pl.DataFrame: ...


@overload
def load(
    name: str,
    *,
    version: Version | None = None,
    split: Split | None = None,
    kind: Literal["path"],
    datasets_dir: Path | str | None = None,
) -> Path: ...


@overload
def load(
    name: str,
    *,
    version: Version | None = None,
    split: Split | None = None,
    kind: Literal["torch"],
    datasets_dir: Path | str | None = None,
) -> "Dataset[tuple[torch.Tensor, str]]": ...


def load(
    name: str,
    *,
    version: Version | None = None,
    split: Split | None = None,
    kind: Literal["frame", "path", "torch"] = "frame",
    datasets_dir: Path | str | None = None,
) -> "pl.DataFrame | Path | Dataset[tuple[torch.Tensor, str]]":
    """Load a published dataset.

    Parameters
    ----------
    name : str
        The dataset's name, which is its policy's.
    version : str or int, optional
        `vN-HASH`, `vN` or N; by default the newest.
    split : {"train", "valid", "test"}, optional
        By default all of them; one that the version has no rows of is an empty frame or Dataset, and has no folder.
    kind : {"frame", "path", "torch"}
        A Polars frame of the rows, with the clip's file in `path`; the folder; or a torch Dataset of (waveform, text), where the
        waveform is float32 of shape (1, samples) at the policy's rate.
    datasets_dir : Path or str, optional
        By default that of the settings.

    Raises
    ------
    ConfigurationError
        If there is no such dataset, version, split, kind or folder; it says which there are.
    """
    if kind not in KINDS:
        raise ConfigurationError(f"no kind {kind!r}: there are {', '.join(KINDS)}")
    if split is not None and split not in SPLITS:
        near = difflib.get_close_matches(str(split), SPLITS, n=1)
        raise ConfigurationError(
            f"no split {split!r}: " + (f"did you mean {near[0]}?" if near else f"there are {', '.join(SPLITS)}")
        )
    folder = find(name, version, datasets_dir=datasets_dir)
    if kind == "path":
        return folder if split is None else _folder_of(folder, split)
    rows = read_rows(folder)
    if split is not None:
        rows = rows.filter(pl.col("split") == split)
    if kind == "frame":
        return rows
    return cast("Dataset[tuple[torch.Tensor, str]]", TorchClips(rows["path"].to_list(), rows["text"].to_list()))


def _folder_of(version: Path, split: str) -> Path:
    if not (version / split).is_dir():
        there = ", ".join(each for each in SPLITS if (version / each).is_dir())
        raise ConfigurationError(
            f"{version.parent.name} {version.name} has no rows in {split}, and no folder of it: there are {there}"
        )
    return version / split


def find(name: str, version: Version | None = None, *, datasets_dir: Path | str | None = None) -> Path:
    """Folder of a published version, given as `vN-HASH`, `vN` or N; by default of the newest."""
    home = Path(datasets_dir or settings().datasets_location) / name
    known = visible(home)
    if not known:
        there = sorted(path.name for path in home.parent.glob("*") if visible(path))
        near = difflib.get_close_matches(name, there, n=1)
        meant = f"did you mean {near[0]}?" if near else f"published in {home.parent}: {', '.join(there) or 'nothing yet'}"
        raise ConfigurationError(f"no dataset {name}: {meant}")
    if version is None:
        return home / known[-1]
    for candidate in known:
        ordinal = versions.ordinal_of(candidate)
        if version in (candidate, f"v{ordinal}", ordinal, str(ordinal)):
            return home / candidate
    raise ConfigurationError(f"no version {version} of {name}: there are {', '.join(known)}")


def visible(home: Path) -> list[str]:
    """Names of the versions in a dataset's folder, oldest first; folders of other names, such as a copy's, are none."""
    there = (path.parent.name for path in home.glob(f"v*-*/{manifest.MANIFEST}"))
    return sorted(filter(versions.NAME.fullmatch, there), key=versions.ordinal_of)


def read_rows(folder: Path) -> pl.DataFrame:
    """Rows of a published version, with each clip's file in `path`."""
    rows = pl.read_parquet(folder / "lineage" / "rows.parquet")
    return rows.with_columns(path=pl.format("{}/{}/{}.flac", pl.lit(str(folder)), "split", "id"))


def list_versions(name: str | None = None, *, datasets_dir: Path | str | None = None) -> list[dict[str, Any]]:
    """Published versions, oldest first, of one dataset or of all: name, version, path, rows by split."""
    home = Path(datasets_dir or settings().datasets_location)
    names = [name] if name is not None else sorted(path.name for path in home.glob("*") if path.is_dir())
    if name is not None:
        find(name, datasets_dir=home)
    return [
        {
            "name": known,
            "version": version,
            "path": str(home / known / version),
            "rows": manifest.read(home / known / version)["rows"],
        }
        for known in names
        for version in visible(home / known)
    ]


def show_version(name: str, version: Version | None = None, *, datasets_dir: Path | str | None = None) -> dict[str, Any]:
    """Everything that a version says of itself: lineage, policy, counts, sizes."""
    folder = find(name, version, datasets_dir=datasets_dir)
    promised = manifest.read(folder)
    lineage = versions.read_lineage(folder)
    files = promised["files"].values()
    about = {
        "path": str(folder),
        "rows": promised["rows"],
        "files": len(files),
        "size_bytes": sum(file["size_bytes"] for file in files),
    }
    return {"name": name, "version": promised["version"], **about, "lineage": lineage}


def verify(name: str, version: Version | None = None, *, datasets_dir: Path | str | None = None) -> list[str]:
    """Check every file of a version against its manifest; says what is missing, strange or changed."""
    return manifest.problems(find(name, version, datasets_dir=datasets_dir))


def diff(name: str, old: Version, new: Version | None = None, *, datasets_dir: Path | str | None = None) -> pl.DataFrame:
    """Tell what makes of the one version the other: how that one was made otherwise, then its rows.

    Returns
    -------
    pl.DataFrame
        `id`, `generation_id`, `change` (made-otherwise, added, removed, changed), `columns` (those that changed), `reason`: the
        rule that left a removed take out, `cut-anew` where the take is still in with other clips, `not in VERSION` where
        neither is known, `passes` for an added one. Where it was made otherwise (another policy, other versions of formats,
        analysis or packages, by which every clip may sound or be written otherwise though no row says so), `id` and
        `generation_id` are null, `columns` holds the key, such as `policy.audio.sample_rate_hz`, and `reason` both values.
    """
    before, after = (find(name, version, datasets_dir=datasets_dir) for version in (old, new))
    made, newer = versions.read_lineage(after), read_rows(after)
    unknown = pl.lit(f"not in {after.name}")
    left = pl.col("generation_id").replace_strict(made.get("gone", {}), default=unknown, return_dtype=pl.String)
    left = pl.when(pl.col("generation_id").is_in(newer["generation_id"].implode())).then(pl.lit("cut-anew")).otherwise(left)
    changed = pl.lit("changed: ") + pl.col("columns").list.join(", ")
    reason = pl.when(pl.col("change") == "removed").then(left).when(pl.col("change") == "added").then(pl.lit("passes"))
    rows = versions.diff(read_rows(before), newer).with_columns(reason=reason.otherwise(changed))
    otherwise = [
        {"change": "made-otherwise", "columns": [key], "reason": reason}
        for key, reason in versions.made_otherwise(versions.read_lineage(before), made)
    ]
    return pl.concat([pl.DataFrame(otherwise, schema=rows.schema), rows])


class TorchClips:
    """Clips with their texts, read when they are asked for: a dataset of torch's map style.

    Not inside a function, so that it can be pickled for workers that are spawned; not torch's own class, whose import takes
    seconds.
    """

    def __init__(self, paths: Sequence[str], texts: Sequence[str]) -> None:
        self.paths, self.texts = paths, texts

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> "tuple[torch.Tensor, str]":
        """Samples of shape (channels, n), float32, and the text of one clip."""
        import soundfile
        import torch

        samples, _ = soundfile.read(self.paths[index], dtype="float32", always_2d=True)
        return torch.from_numpy(samples.T.copy()), self.texts[index]


def padded(batch: "Sequence[tuple[torch.Tensor, str]]") -> "tuple[torch.Tensor, torch.Tensor, list[str]]":
    """Put clips of different lengths into one batch: torch's `collate_fn` for `load(…, kind="torch")`.

    Returns
    -------
    (waveforms, samples, texts)
        float32 of shape (clips, channels, longest), zeros behind the shorter ones; int64 of shape (clips,), how many samples of
        each are the clip's own; the texts.
    """
    import torch

    waveforms, texts = zip(*batch, strict=True)
    samples = torch.tensor([waveform.shape[-1] for waveform in waveforms])
    stacked = torch.nn.utils.rnn.pad_sequence([waveform.T for waveform in waveforms], batch_first=True)
    return stacked.transpose(1, 2), samples, list(texts)
