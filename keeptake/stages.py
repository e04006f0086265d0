"""The stages of a take's path, for the pending rows of one capture day: hear it, place it.

Each claims its day, so that two runs of one day never do the same work, and does only rows that are missing or stale. What runs
in the worker processes stands at the end of the file. Belongs here: joining ledger, store, pool and craft. Does not: any of
theirs; the fetching of audio (`custody/`); scores, which need no day (`ledger/scores.py`).
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from keeptake.audio_store import AudioStore
from keeptake.compute import Failed, Pool
from keeptake.errors import AudioReason, AudioRefusedError
from keeptake.ledger.analyses import Heard, ToHear, audio_to_hear, mark_unhearable, save_analyses
from keeptake.ledger.connection import Ledger
from keeptake.ledger.vectors import Embedded, ToEmbed, audio_to_embed, move_placed_on, save_embeddings, save_vectors
from keeptake.model_store import ModelStore
from keeptake.stage import Limits, Progress, StageReport, silent, work_through

if TYPE_CHECKING:
    from keeptake.audio.analyze import Networks
    from keeptake.embedding.models import Embedder
    from keeptake.embedding.shared_pass import SharedPass


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
    from keeptake.embedding.models import DEFAULT_MODEL, version_of

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
    embed: Callable[[ToEmbed], Embedded] | None = None,
    progress: Progress = silent,
) -> StageReport:
    """Place every heard audio file of a day that has no vector of this model and version.

    Parameters and errors are those of `hear_day`; the pool's workers are prepared by `prepare_embedding`. Files that were placed
    while they were heard count as done here.
    """

    def save(embedded: list[Embedded]) -> None:
        with ledger.begin() as connection:
            save_embeddings(connection, embedded, model, version)

    def fail(item: ToEmbed, failure: Failed) -> str:
        return _quarantine(ledger, item.sha256, failure)

    with ledger.claim(f"embedding of {day}", wait_s=limits.budget_s):
        placed = move_placed_on(ledger, day, model, version)
        items = audio_to_embed(ledger, day, model, version)
        report = work_through(
            "embedding", pool, embed or embed_one, items, save=save, fail=fail, limits=limits, progress=progress
        )
    return replace(report, done=report.done + placed)


def _quarantine(ledger: Ledger, sha256: str, failure: Failed) -> str:
    reason = AudioReason.TIMEOUT if failure.reason == "timeout" else AudioReason.CRASHED_WORKER
    if isinstance(failure.error, AudioRefusedError):
        reason = failure.error.reason
    with ledger.begin() as connection:
        mark_unhearable(connection, sha256, reason.value)
    return reason.value


class _Worker(NamedTuple):
    """What a worker process has at hand."""

    store: AudioStore
    networks: "Networks | None" = None
    shared_pass: "SharedPass | None" = None
    embedder: "Embedder | None" = None


_worker: _Worker | None = None


def prepare_hearing(audio_url: str, models: Path) -> None:
    """Load in a worker process what `hear_one` needs."""
    from keeptake.embedding.models import has_gpu
    from keeptake.embedding.shared_pass import SharedPass
    from keeptake.hearing import load_networks

    global _worker
    networks, shared_pass = load_networks(ModelStore(models)), None
    if not has_gpu():  # there the embedding's own stage takes many takes at once
        shared_pass = SharedPass(ModelStore(models))
        networks = replace(networks, style=shared_pass)
    _worker = _Worker(AudioStore(audio_url), networks=networks, shared_pass=shared_pass)


def prepare_embedding(audio_url: str, models: Path, model: str) -> None:
    """Load in a worker process what `embed_one` needs."""
    from keeptake.embedding.models import load_embedder

    global _worker
    _worker = _Worker(AudioStore(audio_url), embedder=load_embedder(model, ModelStore(models)))


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
