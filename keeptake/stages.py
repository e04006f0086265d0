"""The stages of a take's path, for the pending rows of one capture day: hear it, place it.

Each claims its day, so that two runs of one day never do the same work, and does only rows that are missing or stale. What runs
in the worker processes stands at the end of the file. Belongs here: joining ledger, store, pool and craft. Does not: any of
theirs; the fetching of audio (`custody/`); scores, which need no day (`ledger/scores.py`).
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from keeptake.audio_store import AudioStore
from keeptake.compute import Failed, Pool
from keeptake.embedding import DEFAULT_MODEL, PROMPTS
from keeptake.embedding.models import version_of
from keeptake.errors import AudioReason, AudioRefusedError, DamagedObjectError
from keeptake.ledger.analyses import Heard, ToHear, audio_to_hear, mark_unhearable, save_analyses
from keeptake.ledger.connection import Ledger
from keeptake.ledger.vectors import (
    Embedded,
    ToEmbed,
    audio_to_embed,
    move_placed_on,
    prompts_to_embed,
    save_embeddings,
    save_vectors,
)
from keeptake.model_store import ModelStore
from keeptake.stage import Limits, Progress, StageReport, silent, work_through

if TYPE_CHECKING:
    from keeptake.audio.analyze import Networks
    from keeptake.embedding.models import Embedder
    from keeptake.embedding.shared_pass import SharedPass

PROMPTS_A_COMMIT = 256


def hear_day(
    ledger: Ledger,
    day: str,
    pool: Pool,
    limits: Limits,
    *,
    listen: Callable[[ToHear], Heard] | None = None,
    progress: Progress = silent,
) -> StageReport:
    """Hear every audio file of a day of which a part is missing or stale.

    Parameters
    ----------
    day : str
        Capture day, YYYY-MM-DD.
    pool : Pool
        Its workers prepared by `prepare_hearing`.
    listen : callable, optional
        Another analyzer than ours, importable by name: how a benchmark tells what everything else costs.

    Raises
    ------
    BusyError
        If another run holds the day for longer than `limits.budget_s`.
    """
    from keeptake.audio.analyze import PART_VERSIONS

    def save(heard: list[Heard]) -> None:
        placed = [Embedded(file.sha256, file.vector) for file in heard if file.vector is not None]
        with ledger.begin() as connection:
            save_analyses(connection, heard, PART_VERSIONS)
            save_vectors(connection, placed, DEFAULT_MODEL, version_of(DEFAULT_MODEL))

    def fail(item: ToHear, failure: Failed) -> str:
        return _quarantine(ledger, item.sha256, failure)

    with ledger.claim(f"hearing of {day}", wait_s=limits.budget_s):
        items = audio_to_hear(ledger, day, PART_VERSIONS)
        return work_through("hearing", pool, listen or hear_one, items, save=save, fail=fail, limits=limits, progress=progress)


def embed_day(
    ledger: Ledger,
    day: str,
    pool: Pool,
    limits: Limits,
    *,
    model: str,
    version: str,
    load_here: "Callable[[], Embedder] | None" = None,
    progress: Progress = silent,
) -> StageReport:
    """Place every heard audio file of a day that has no vector of this model and version.

    Errors are those of `hear_day`. By the default model takes move on, and those that were placed while they were heard count as
    done too; what it cannot place is quarantined. A further model only adds vectors, and tries again what it failed at.

    Parameters
    ----------
    pool : Pool
        Its workers prepared by `prepare_embedding`; by `prepare_opening` with `load_here`.
    load_here : callable, optional
        Loads an embedder that takes many audios at once, on a GPU: this process places them, as many together as are committed
        together, and the workers only open the files. Called only where there is work.
    """
    is_default = model == DEFAULT_MODEL

    def save(embedded: list[Embedded]) -> None:
        with ledger.begin() as connection:
            (save_embeddings if is_default else save_vectors)(connection, embedded, model, version)

    def fail(item: ToEmbed, failure: Failed) -> str:
        return _quarantine(ledger, item.sha256, failure) if is_default else _reason(failure)

    through = partial(work_through, f"embedding by {model}", pool, fail=fail, limits=limits, progress=progress)
    with ledger.claim(f"embedding of {day} by {model}", wait_s=limits.budget_s):
        placed = move_placed_on(ledger, day, model, version) if is_default else 0
        items = audio_to_embed(ledger, day, model, version)
        if load_here and items:
            embedder = load_here()
            report = through(
                partial(open_one, rate_hz=embedder.sample_rate_hz), items, save=lambda opened: save(_together(opened, embedder))
            )
        else:
            report = through(embed_one, items, save=save)
    return replace(report, done=report.done + placed)


def embed_prompts_of_day(ledger: Ledger, day: str, limits: Limits, *, version: str, progress: Progress = silent) -> StageReport:
    """Place the takes of a day by the words that they were asked for with, in this process: a prompt takes milliseconds.

    Raises
    ------
    BusyError
        If another run holds the day for longer than `limits.budget_s`.
    ModelMissingError
        If the text model is not installed.
    """
    from keeptake.embedding.text import embed_text

    end = monotonic() + limits.budget_s
    with ledger.claim(f"embedding of {day} by {PROMPTS}", wait_s=limits.budget_s):
        asked = prompts_to_embed(ledger, day, PROMPTS, version)
        done = 0
        while done < len(asked) and monotonic() < end:
            chunk = asked[done : done + PROMPTS_A_COMMIT]
            vectors = embed_text([item.prompt for item in chunk])
            with ledger.begin() as connection:
                placed = [Embedded(item.sha256, vector) for item, vector in zip(chunk, vectors, strict=True)]
                save_vectors(connection, placed, PROMPTS, version)
            done += len(chunk)
            progress(f"embedding by {PROMPTS}", done, len(asked))
    return StageReport(done=done, remaining=len(asked) - done)


def _together(opened: "list[Opened]", embedder: "Embedder") -> list[Embedded]:
    vectors = embedder.embed([file.mono for file in opened])
    return [Embedded(file.sha256, vector) for file, vector in zip(opened, vectors, strict=True)]


class WayOfPlacing(NamedTuple):
    """What prepares the worker processes of `embed_day`, and what it loads in its own."""

    prepare: Callable[[], None]
    load_here: "Callable[[], Embedder] | None"


def way_of_placing(audio_url: str, models: ModelStore, model: str) -> WayOfPlacing:
    """Many takes at once on a GPU where there is one; else a take a worker, each with the model."""
    from keeptake.embedding.models import has_gpu, load_embedder

    if has_gpu():
        return WayOfPlacing(partial(prepare_opening, audio_url), partial(load_embedder, model, models, device="cuda"))
    return WayOfPlacing(partial(prepare_embedding, audio_url, models.folder, model), None)


def _quarantine(ledger: Ledger, sha256: str, failure: Failed) -> str:
    reason = _reason(failure)
    with ledger.begin() as connection:
        mark_unhearable(connection, sha256, reason)
    return reason


def _reason(failure: Failed) -> str:
    if isinstance(failure.error, AudioRefusedError):
        return failure.error.reason.value
    if isinstance(failure.error, DamagedObjectError):
        return AudioReason.DAMAGED_OBJECT.value
    return (AudioReason.TIMEOUT if failure.reason == "timeout" else AudioReason.CRASHED_WORKER).value


class Opened(NamedTuple):
    """An audio file that waits in memory to be placed."""

    sha256: str
    mono: np.ndarray  # shape (samples,), float32, at the embedder's rate


class _Worker(NamedTuple):
    """What a worker process has at hand."""

    store: AudioStore
    networks: "Networks | None" = None
    shared_pass: "SharedPass | None" = None
    embedder: "Embedder | None" = None


_worker: _Worker | None = None


def prepare_hearing(audio_url: str, models: Path) -> None:
    """Load in a worker process what `hear_one` needs."""
    from keeptake.embedding.shared_pass import SharedPass
    from keeptake.hearing import load_networks

    global _worker
    shared_pass = SharedPass(ModelStore(models))
    networks = replace(load_networks(ModelStore(models)), style=shared_pass)
    _worker = _Worker(AudioStore(audio_url), networks=networks, shared_pass=shared_pass)


def prepare_embedding(audio_url: str, models: Path, model: str) -> None:
    """Load in a worker process what `embed_one` needs."""
    from keeptake.embedding.models import load_embedder

    global _worker
    _worker = _Worker(AudioStore(audio_url), embedder=load_embedder(model, ModelStore(models)))


def prepare_opening(audio_url: str) -> None:
    """Give a worker process what `open_one` needs."""
    global _worker
    _worker = _Worker(AudioStore(audio_url))


def hear_one(item: ToHear) -> Heard:
    """Hear the missing and stale parts of one stored file."""
    from keeptake.audio.analyze import FEATURE_COLUMNS, features
    from keeptake.hearing import hear

    if _worker is None:
        raise RuntimeError("this process was not prepared by prepare_hearing")
    if _worker.shared_pass is not None:
        _worker.shared_pass.vector = None
    with _worker.store.as_file(item.sha256) as path:
        _, parts = hear(path, parts=item.parts, networks=_worker.networks)
    asked = {column for part in item.parts for column in FEATURE_COLUMNS[part]}
    columns = {column: value for column, value in features(parts).items() if column in asked}
    return Heard(item.sha256, parts, columns, None if _worker.shared_pass is None else _worker.shared_pass.vector)


def embed_one(item: ToEmbed) -> Embedded:
    """Place one stored file."""
    from keeptake.embedding.files import embed_file

    if _worker is None or _worker.embedder is None:
        raise RuntimeError("this process was not prepared by prepare_embedding")
    with _worker.store.as_file(item.sha256) as path:
        return Embedded(item.sha256, embed_file(path, _worker.embedder))


def open_one(item: ToEmbed, *, rate_hz: int) -> Opened:
    """Open one stored file for an embedder elsewhere."""
    from keeptake.embedding.files import mono_of_file

    if _worker is None:
        raise RuntimeError("this process was not prepared by prepare_opening")
    with _worker.store.as_file(item.sha256) as path:
        return Opened(item.sha256, mono_of_file(path, rate_hz))
