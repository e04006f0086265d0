"""The stage that finds copies: fingerprint a day's audio files, then hold the new ones against all others.

A file whose fingerprint fails gets an empty one: it is a copy of nothing, the reason is in the report, and the stage does not
come back to it. One that the store has lost gets none, since it may be restored.

Belongs here: joining ledger, store, pool and craft; what runs in the worker processes. Does not: any of theirs.
"""

from pathlib import Path

import numpy as np

from keeptake.audio_store import AudioStore
from keeptake.compute import Failed, Pool
from keeptake.errors import AudioReason, AudioRefusedError, DamagedObjectError
from keeptake.ledger.connection import Ledger
from keeptake.ledger.duplicates import Fingerprinted, ToFingerprint, audio_to_fingerprint, save_fingerprints
from keeptake.stage import Limits, Progress, StageReport, silent, work_through

_store: AudioStore | None = None


def prepare_fingerprinting(audio_url: str) -> None:
    """Open in a worker process what `fingerprint_one` needs."""
    global _store
    _store = AudioStore(audio_url)


def fingerprint_day(ledger: Ledger, day: str, pool: Pool, limits: Limits, *, progress: Progress = silent) -> StageReport:
    """Fingerprint every audio file of a day whose fingerprint is missing or stale.

    Parameters
    ----------
    day : str
        Capture day, YYYY-MM-DD.
    pool : Pool
        Its workers prepared by `prepare_fingerprinting`.

    Raises
    ------
    BusyError
        If another run holds the day for longer than `limits.budget_s`.
    """

    def save(made: list[Fingerprinted]) -> None:
        with ledger.begin() as connection:
            save_fingerprints(connection, made)

    def fail(item: ToFingerprint, failure: Failed) -> str:
        if isinstance(failure.error, DamagedObjectError):
            return AudioReason.DAMAGED_OBJECT.value
        save([Fingerprinted(item.sha256, np.zeros(0, np.uint64))])
        return str(failure.error.reason) if isinstance(failure.error, AudioRefusedError) else failure.reason

    with ledger.claim(f"fingerprinting of {day}", wait_s=limits.budget_s):
        items = audio_to_fingerprint(ledger, day)
        return work_through(
            "fingerprinting", pool, fingerprint_one, items, save=save, fail=fail, limits=limits, progress=progress
        )


def fingerprint_one(item: ToFingerprint) -> Fingerprinted:
    """Fingerprint one stored file."""
    if _store is None:
        raise RuntimeError("this process was not prepared by prepare_fingerprinting")
    with _store.as_file(item.sha256) as path:
        return Fingerprinted(item.sha256, fingerprint_file(path))


def fingerprint_file(path: Path) -> np.ndarray:
    """Code words of an audio file, mixed as the rest of the analysis hears it.

    Raises
    ------
    AudioRefusedError
        If the file does not decode.
    InvalidAudioError
        If samples are not finite.
    """
    from keeptake.audio.fingerprint import fingerprint
    from keeptake.audio.frontend import SAMPLE_RATE_HZ, whole_mix
    from keeptake.custody.decode import open_audio

    with open_audio(path) as audio:
        mono = whole_mix(audio.blocks(), audio.sample_rate_hz)
    return fingerprint(mono, SAMPLE_RATE_HZ)
