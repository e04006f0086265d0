"""Takes audio into custody: fetched, proved, stored once, or quarantined with a reason.

Conventions: each outcome is stored, retrying (with the time of the next attempt) or quarantined; the outcomes of a batch are
committed together, after their objects are in the store, so that no row ever names an object that is missing. What is killed in
between is done again by the next run.

Belongs here: joining fetch, proof, store and ledger. Does not: any of theirs.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from keeptake.audio_store import AudioStore
from keeptake.compute import Failed, Ok, Pool
from keeptake.custody.fetch import Fetched, Request, fetch_all
from keeptake.custody.policy import FetchPolicy
from keeptake.custody.prove import Proof, differs, prepare_worker, prove
from keeptake.custody.spool import Spool
from keeptake.errors import RETRYABLE_AUDIO_REASONS, AudioReason, AudioRefusedError, AudioStatus
from keeptake.ledger.audio import AudioFile, AudioOutcome, PendingAudio, count_due, pending_audio, save_outcomes
from keeptake.ledger.connection import Ledger
from keeptake.settings import Settings
from keeptake.stage import Progress, StageReport, silent

PROOF_CPU_S = 120.0  # half an hour of 5.1 Opus, the dearest that is kept, takes 20 s
PROOF_MEMORY_MB = 1024
MAX_ATTEMPTS = 10  # with the delays below, two days and eighteen hours: a weekend
FIRST_DELAY = timedelta(minutes=10)
LONGEST_DELAY = timedelta(days=1)
STORE_THREADS = 8  # puts at once: S3 answers one in 50 ms

# Names of one thing: a claim of the left is met by a container or codec of the right.
_SAME_FORMAT: Mapping[str, frozenset[str]] = {
    "m4a": frozenset({"m4a", "mp4"}),
    "mp4": frozenset({"m4a", "mp4"}),
    "mpeg": frozenset({"mp3"}),
    "wave": frozenset({"wav"}),
    "aif": frozenset({"aiff"}),
    "oga": frozenset({"ogg"}),
    "weba": frozenset({"webm"}),
}


class Kept(NamedTuple):
    """Audio that was received, proved and stored."""

    file: AudioFile
    is_new: bool


def keep_day(
    ledger: Ledger,
    day: str,
    store: AudioStore,
    settings: Settings,
    *,
    policy: FetchPolicy | None = None,
    progress: Progress = silent,
) -> StageReport:
    """Fetch the audio of every generation of a day that has none and is due.

    Parameters
    ----------
    day : str
        Capture day, YYYY-MM-DD.
    policy : FetchPolicy, optional
        By default as the settings say.

    Returns
    -------
    StageReport
        `done` counts stored files, `failed` the others by reason, `remaining` what is due and was not reached.

    Raises
    ------
    BusyError
        If another run holds the day for longer than a run may take.
    UnavailableError, ConfigurationError
        If the store cannot be used: no generation is blamed for that.
    """

    def save(outcomes: list[AudioOutcome]) -> None:
        with ledger.begin() as connection:
            save_outcomes(connection, outcomes)

    with ledger.claim(f"audio of {day}", wait_s=settings.run_budget_s):
        pending = pending_audio(ledger, day)
        if not pending:
            return StageReport()  # without starting any process
        store.check()
        report = keep_pending(
            pending,
            store,
            policy=policy or FetchPolicy.from_settings(settings),
            save=save,
            pool=Pool(settings.workers, initializer=prepare_worker),
            chunk_rows=settings.chunk_rows,
            budget_s=settings.run_budget_s,
            progress=progress,
        )
        report.remaining = count_due(ledger, day)
    return report


def keep_pending(
    pending: Sequence[PendingAudio],
    store: AudioStore,
    *,
    policy: FetchPolicy,
    save: Callable[[list[AudioOutcome]], None],
    pool: Pool,
    chunk_rows: int = 64,
    budget_s: float = math.inf,
    progress: Progress = silent,
) -> StageReport:
    """Fetch, prove and store the audio of generations, and save what became of each, chunk by chunk.

    Parameters
    ----------
    pending : sequence of PendingAudio
    store : AudioStore
    policy : FetchPolicy
    save : callable
        Stores a chunk of outcomes in one commit.
    pool : Pool
        Not entered yet, its workers prepared by `prepare_worker`.
    chunk_rows : int, > 0
        Outcomes that are saved together, at most.
    budget_s : float, > 0
        Seconds after which no other chunk is begun.
    progress : callable

    Returns
    -------
    StageReport
    """
    report = StageReport(remaining=len(pending))
    rows = {row.id: row for row in pending}
    requests = [Request(row.id, row.audio_url, row.provider, row.root) for row in pending]
    end_s = time.monotonic() + budget_s
    with ExitStack() as stack:
        stack.enter_context(pool.at_most(len(pending)))
        puts = stack.enter_context(ThreadPoolExecutor(STORE_THREADS, thread_name_prefix="keeptake-put"))
        batches = fetch_all(requests, policy, most=chunk_rows, spool_folder=store.spool_folder)
        stack.callback(batches.close)
        for batch in batches:
            try:
                outcomes = _keep_batch(batch, rows, store, pool, puts)
            finally:
                for fetched in batch:
                    fetched.spool.close()
            save(outcomes)
            report.done += sum(outcome.status is AudioStatus.STORED for outcome in outcomes)
            report.failed.update(outcome.reason.value for outcome in outcomes if outcome.reason)
            report.remaining -= len(outcomes)
            progress("audio", len(pending) - report.remaining, len(pending))
            if time.monotonic() >= end_s:
                break
    return report


def receive(spool: Spool, store: AudioStore, pool: Pool) -> Kept:
    """Prove and store audio that was sent to us.

    Parameters
    ----------
    spool : Spool
        A whole file, spooled where the store has its files.
    pool : Pool
        Entered, its workers prepared by `prepare_worker`; one `receive` at a time uses it.

    Returns
    -------
    Kept

    Raises
    ------
    AudioRefusedError
        With the reason for which it is not kept.
    UnavailableError, ConfigurationError
        If the store cannot be used, or no worker can start.
    """
    spool.finish()
    proof = _prove_all([spool.path], pool)[spool.path]
    if isinstance(proof, AudioRefusedError):
        raise proof
    return _store(spool, proof, store)


def outcome_of_upload(
    generation: int, kept: Kept, *, claimed_format: str | None, claimed_duration_s: float | None
) -> AudioOutcome:
    """What is saved for a generation whose audio was received, as `save_outcomes` takes it."""
    flags, differences = _disagreement(kept.file, claimed_format, claimed_duration_s)
    detail = {"detail": "uploaded", "size_bytes": kept.file.size_bytes, **differences}
    return AudioOutcome(generation, AudioStatus.STORED, None, detail, kept.file, flags, datetime.now(UTC), None)


def _keep_batch(
    batch: Sequence[Fetched], rows: Mapping[int, PendingAudio], store: AudioStore, pool: Pool, puts: ThreadPoolExecutor
) -> list[AudioOutcome]:
    proofs = _prove_all([fetched.spool.path for fetched in batch if fetched.refusal is None], pool)
    verdicts = [fetched.refusal or proofs[fetched.spool.path] for fetched in batch]

    def finish(fetched: Fetched, verdict: Proof | AudioRefusedError) -> AudioOutcome:
        row = rows[fetched.request.key]
        if isinstance(verdict, AudioRefusedError):
            return _failed(row, fetched, verdict)
        return _stored(row, fetched, _store(fetched.spool, verdict, store).file)

    futures = [puts.submit(finish, fetched, verdict) for fetched, verdict in zip(batch, verdicts, strict=True)]
    wait(futures)  # all, before one failure lets the caller close the files that the others still read
    return [future.result() for future in futures]


def _prove_all(paths: Iterable[Path], pool: Pool) -> dict[Path, Proof | AudioRefusedError]:
    proofs: dict[Path, Proof | AudioRefusedError] = {}
    for path, outcome in pool.map(prove, paths, cpu_s=PROOF_CPU_S, memory_mb=PROOF_MEMORY_MB):
        match outcome:
            case Ok(value):
                proofs[path] = value
            case Failed():
                proofs[path] = _refusal_of(outcome)
    return proofs


def _refusal_of(failure: Failed) -> AudioRefusedError:
    if isinstance(failure.error, AudioRefusedError):
        return failure.error
    if failure.reason == "crashed":
        return AudioRefusedError(AudioReason.CRASHED_WORKER, f"the decoder died of it: {failure.detail}")
    what = failure.detail.strip().splitlines()[-1] if failure.reason == "raised" else failure.detail
    return AudioRefusedError(AudioReason.UNDECODABLE, f"decoding was given up: {what}")


def _store(spool: Spool, proof: Proof, store: AudioStore) -> Kept:
    stored = store.put(spool.path, sha256=spool.sha256)
    file = AudioFile(
        sha256=stored.sha256,
        storage_key=stored.key,
        size_bytes=stored.size_bytes,
        format=proof.format,
        codec=proof.codec,
        duration_s=proof.duration_s,
        sample_rate_hz=proof.sample_rate_hz,
        channels=proof.channels,
        flags=proof.flags,
        measures=proof.measures,
    )
    return Kept(file, stored.is_new)


def _stored(row: PendingAudio, fetched: Fetched, file: AudioFile) -> AudioOutcome:
    flags, differences = _disagreement(file, row.claimed_format, row.claimed_duration_s)
    detail = {"detail": "stored", **_evidence(fetched), **differences}
    return AudioOutcome(row.id, AudioStatus.STORED, None, detail, file, flags, datetime.now(UTC), None)


def _failed(row: PendingAudio, fetched: Fetched, refusal: AudioRefusedError) -> AudioOutcome:
    now = datetime.now(UTC)
    attempts = row.attempts + 1
    status, next_attempt_at = AudioStatus.QUARANTINED, None
    if refusal.reason in RETRYABLE_AUDIO_REASONS and attempts < MAX_ATTEMPTS:
        status, next_attempt_at = AudioStatus.RETRYING, now + next_delay(attempts, refusal.retry_after_s)
    detail = {"detail": refusal.detail, **_evidence(fetched)}
    return AudioOutcome(row.id, status, refusal.reason, detail, None, (), now, next_attempt_at)


def next_delay(attempts: int, retry_after_s: float | None) -> timedelta:
    """How long a failed row rests: doubling from ten minutes up to a day, and never less than the server asked for.

    >>> next_delay(1, None), next_delay(3, None), next_delay(1, 3600.0)
    (datetime.timedelta(seconds=600), datetime.timedelta(seconds=2400), datetime.timedelta(seconds=3600))
    """
    asked = timedelta(seconds=min(retry_after_s or 0.0, LONGEST_DELAY.total_seconds()))
    return max(asked, min(LONGEST_DELAY, FIRST_DELAY * (1 << attempts - 1)))


def _evidence(fetched: Fetched) -> dict[str, Any]:
    return {"size_bytes": fetched.spool.size_bytes, "first_bytes_type": fetched.spool.first_bytes_type, "tries": fetched.tries}


def _disagreement(
    file: AudioFile, claimed_format: str | None, claimed_duration_s: float | None
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Flags and details of where a claim and the measurement differ."""
    flags: list[str] = []
    details: dict[str, Any] = {}
    if claimed_duration_s is not None and differs(file.duration_s, claimed_duration_s):
        flags.append("claimed-duration-differs")
        details["duration_s"] = {"claimed": claimed_duration_s, "measured": file.duration_s}
    if claimed_format:
        name = claimed_format.lower().lstrip(".")
        if not _SAME_FORMAT.get(name, frozenset({name})) & {file.format, file.codec}:
            flags.append("claimed-format-differs")
            details["format"] = {"claimed": claimed_format, "measured": file.format}
    return tuple(flags), details
