"""From a policy to a visible version: staged aside, proved by its readers, made visible by one rename.

Conventions: a version is built in `DATASETS/NAME/.staged/VERSION`, and becomes `DATASETS/NAME/VERSION` in one step with its
manifest inside; killed anywhere before that, nothing is visible, and the next attempt starts over. The steps are functions of
their own, so that each can be a step of a run: `stage_version` (choose, cut, write audio), then `write_jsonl`, `write_parquet`
and `write_csv` of `building.py`, then `publish_staged` (leaks, card, gate, manifest, rename, ledger); `publish` does them all.

Belongs here: the order of things, and what happens when one fails. Does not: the files (`building.py`), choosing (`select.py`).
"""

import importlib.metadata
import os
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from keeptake.curation.building import (
    FORMAT_VERSIONS,
    STAGED,
    TOO_QUIET,
    ReadAudio,
    Stage,
    finish,
    named_failures,
    write_audio,
    write_csv,
    write_jsonl,
    write_parquet,
)
from keeptake.curation.leaks import alike, find_leaks
from keeptake.curation.policy import Policy
from keeptake.curation.select import Selection, choose
from keeptake.curation.versions import content_hash, ordinal_of, plan_rows
from keeptake.datasets import visible
from keeptake.embedding import DEFAULT_MODEL
from keeptake.errors import PublicationError
from keeptake.formats import card, manifest
from keeptake.formats.gate import GateReport, inspect
from keeptake.ledger import datasets
from keeptake.ledger.connection import Ledger
from keeptake.ledger.embeddings import current_scaler
from keeptake.ledger.overviews import score_distributions
from keeptake.settings import settings
from keeptake.stage import Progress, silent

# The checks that a version passes before it becomes visible, by the names that the graph shows them under.
LEAKS, READERS = "nothing_leaks_between_splits", "readers_lose_no_row"

_MADE_WITH = ("polars", "pyarrow", "soundfile", "soxr", "numpy", "matplotlib")


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


def curate(ledger: Ledger, policy: Policy) -> Selection:
    """Choose the takes of a dataset and store what the policy says of every take."""
    candidates = datasets.candidates(ledger, policy.select.formula)
    previous = datasets.published_rows(ledger, policy.name)
    pairs = pl.concat([datasets.duplicate_audio(ledger), alike(datasets.vectors(ledger))]).unique(maintain_order=True)
    selection = choose(candidates, policy, pairs=pairs, excerpts=datasets.excerpt_audio(ledger), previous=previous)
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
    return publish_staged(ledger, stage, progress=progress)


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
    with ledger.claim(f"publishing {policy.name}"), named_failures(datasets_dir):
        home = datasets_dir.resolve() / policy.name
        _record_what_is_visible(ledger, policy.name, home)
        selection = curate(ledger, policy)
        shutil.rmtree(home / STAGED, ignore_errors=True)
        takes = datasets.kept_takes(ledger, policy.name, policy.select.formula)
        if takes.is_empty():
            raise PublicationError(_nothing_chosen(policy, selection))
        heard_of = partial(datasets.heard_over_time, ledger)
        rows, scrubbed, contradicted = plan_rows(takes, heard_of, policy, pseudonym_key=pseudonym_key)
        if rows.is_empty():
            raise PublicationError(f"the policy {policy.name} keeps {takes.height} takes, but no clip of the length it asks for")
        digest = content_hash(rows, policy, FORMAT_VERSIONS)
        present = _present(policy.name, home, digest)
        if present is not None:
            _leave_out_silent(ledger, present, rows)
            return present
        version = _next_version(ledger, policy.name, home, digest)
        lineage = {
            "name": policy.name,
            "version": version,
            "location": str(home / version),
            "policy": policy.model_dump(mode="json"),
            "formats": FORMAT_VERSIONS,
            "features_versions": sorted(takes["features_versions"].drop_nulls().unique().to_list()),
            "scaler": _space(ledger),
            "counts": {"candidates": selection.kept.height + selection.left_out.height, "kept": selection.kept.height},
            "left_out": selection.reasons(),
            "gone": _gone(ledger, policy.name, selection),
            "scrubbed": dict(sorted(scrubbed.items())),
            "contradicted_prompts": contradicted,
            "score_histogram": score_distributions(ledger)[policy.select.formula].counts,
            "made_with": {name: importlib.metadata.version(name) for name in _MADE_WITH},
        }
        stage = Stage(policy.name, version, home / STAGED / version, home / version, is_new=True)
        stage.folder.mkdir(parents=True)
        write_audio(stage, rows, lineage, read_audio, progress=progress, threads=threads)
        _leave_out_silent(ledger, stage, rows)
        return stage


def _space(ledger: Ledger) -> str | None:
    """Where copies were looked for: the model, its version and that of its scaler."""
    scaler = current_scaler(ledger, DEFAULT_MODEL)
    return None if scaler is None else f"{scaler.model} {scaler.model_version}, scaler {scaler.version}"


def _leave_out_silent(ledger: Ledger, stage: Stage, rows: pl.DataFrame) -> None:
    """Say of the takes that were chosen, and of which no clip can be heard, that they are not in."""
    silent_takes = sorted(set(rows["generation_id"]) - set(stage.rows["generation_id"]))
    datasets.leave_out(ledger, stage.name, silent_takes, TOO_QUIET, "every clip of it is quieter than -60 dB")


def _gone(ledger: Ledger, name: str, selection: Selection) -> dict[str, str]:
    """Takes that stood in an earlier version and are left out of this one, with the reason: what a diff tells of them."""
    published = datasets.published_rows(ledger, name).select("generation")
    told = selection.left_out.join(published.unique(), on="generation", how="semi").sort("generation_id")
    return dict(told.select("generation_id", "reason").iter_rows())


def _record_what_is_visible(ledger: Ledger, name: str, home: Path) -> None:
    """Record the versions whose process died between the rename and the ledger: what they published fixes splits from now on."""
    known = {row["ordinal"] for row in datasets.versions(ledger, name)}
    for version in visible(home):
        if ordinal_of(version) in known:  # it, or one of another ledger: ours never gives an ordinal that it sees in the folder
            continue
        try:
            record(ledger, Stage(name, version, home / version, home / version, is_new=False))
        except FileNotFoundError as error:
            raise PublicationError(
                f"{name}/{version} is visible, unknown to the ledger, and lacks {error.filename or error}: restore it, or move "
                "it away if nobody trained on it; nothing was published"
            ) from error


def _present(name: str, home: Path, digest: str) -> Stage | None:
    """The newest visible version, where it says the same."""
    for version in visible(home)[-1:]:  # an older one that said so was left: a take that is out again must not stay in
        if version.endswith(f"-{digest}"):
            return Stage(name, version, home / version, home / version, is_new=False)
    return None


def _next_version(ledger: Ledger, name: str, home: Path, digest: str) -> str:
    known = [row["version"] for row in datasets.versions(ledger, name)]
    ordinal = 1 + max([0, *(ordinal_of(version) for version in (*known, *visible(home)))])
    return f"v{ordinal}-{digest}"


def publish_staged(ledger: Ledger, stage: Stage, *, packages: bool = True, progress: Progress = silent) -> Published:
    """Prove a staged version, make it visible by one rename, and record it; a version that is visible already is returned.

    Raises
    ------
    PublicationError
        If rows leak between splits or a reader would lose a row: the version stays aside, the present one stays what it was.
    """
    if not stage.is_new:
        return _published(stage, gate=[])
    with ledger.claim(f"publishing {stage.name}"), named_failures(stage.folder):
        progress("looking for leaks", 0, 1)
        check_leaks(ledger, stage)
        progress("looking for leaks", 1, 1)
        progress("card, Croissant and manifest", 0, 1)
        finish(stage)
        progress("card, Croissant and manifest", 1, 1)
        report = inspect(stage.folder, location=stage.location, packages=packages, progress=progress)
        if not report.is_passed:
            raise PublicationError(_refused(stage, report), check=READERS, found=report.table())
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
        excerpts=datasets.excerpt_audio(ledger),
        prompt_keys=keys,
        hold_out_users=stage.policy.splits.hold_out_users,
        vectors=vectors,
    )
    if not found.is_empty():
        kinds = ", ".join(f"{count} {kind}" for kind, count in found.group_by("kind").len().sort("kind").iter_rows())
        first = found.row(0, named=True)
        raise PublicationError(
            f"{stage.name}/{stage.version} leaks between splits ({kinds}), such as {first['first']} and {first['second']} in "
            f"{first['splits']}: run the duplicates step again, then publish; nothing was published",
            check=LEAKS,
            found=found.to_dicts(),
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


def _published(stage: Stage, gate: list[dict[str, Any]]) -> Published:
    rows, left_out = card.split_counts(stage.rows), stage.lineage["left_out"]
    return Published(stage.name, stage.version, stage.location, rows, stage.is_new, left_out, gate)


def _nothing_chosen(policy: Policy, selection: Selection) -> str:
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in selection.reasons().items()) or "the ledger holds no takes"
    file = settings().policies_dir / f"{policy.name}.toml"
    return f"the policy {policy.name} keeps no take ({reasons}): loosen {file} or run the pending work first"


def _refused(stage: Stage, report: GateReport) -> str:
    problems = report.problems()
    more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
    return (
        f"{stage.name}/{stage.version} was not published, as readers would lose rows: {'; '.join(problems[:3])}{more}; "
        f"it lies in {stage.folder} for a look, and the present version stays"
    )
