"""What can go wrong, by name: the exception tree and the closed lists of reasons.

    KeeptakeError                 anything that we raise on purpose; its text says what to do next
    ├── ConfigurationError        a setting, policy or argument that cannot work: mend it, then repeat
    ├── UnavailableError          a service that we need is away: repeat later
    │   └── LedgerUnavailableError
    ├── BusyError                 somebody else holds what we need: a day's claim, a home
    ├── InvalidAudioError         samples that no analysis may be made of
    ├── DamagedObjectError        an object of the audio store that is missing or not what its name says
    ├── AudioRefusedError         audio that does not enter the store, with one of `AudioReason`
    ├── ModelMissingError         weights that are not on this machine: says what to install or where to put them
    └── PublicationError          a dataset version that must not become visible

Belongs here: names that several rooms share. Does not: the sentence that explains a case (it stands where it is raised).
"""

from enum import StrEnum
from typing import Any


class KeeptakeError(Exception):
    """The root of everything that Keeptake raises on purpose."""


class ConfigurationError(KeeptakeError):
    """A setting, policy or argument cannot work as it stands."""


class UnavailableError(KeeptakeError):
    """A service that is needed does not answer."""


class LedgerUnavailableError(UnavailableError):
    """Postgres does not answer."""


class BusyError(KeeptakeError):
    """Somebody else holds what is needed."""


class InvalidAudioError(KeeptakeError):
    """Samples that no analysis may be made of."""


class DamagedObjectError(KeeptakeError):
    """An object of the audio store is missing, or not what its name says."""


class ModelMissingError(KeeptakeError):
    """Model weights are not on this machine."""


class PublicationError(KeeptakeError):
    """A dataset version must not become visible; where one of its checks says so, that check's name and what it found."""

    def __init__(self, message: str, *, check: str | None = None, found: list[dict[str, Any]] | None = None) -> None:
        super().__init__(message)
        self.check = check
        self.found = found or []


class GenerationStatus(StrEnum):
    """How far a generation has come."""

    CAPTURED = "captured"
    AUDIO_READY = "audio-ready"
    ANALYZED = "analyzed"
    EMBEDDED = "embedded"
    SCORED = "scored"
    QUARANTINED = "quarantined"


class AudioStatus(StrEnum):
    """Where the audio of a generation stands."""

    PENDING = "pending"
    RETRYING = "retrying"
    STORED = "stored"
    QUARANTINED = "quarantined"


class AudioReason(StrEnum):
    """Why the audio of a generation is not in the store."""

    NOT_FOUND = "not-found"
    FORBIDDEN = "forbidden"
    RATE_LIMITED = "rate-limited"
    SERVER_ERROR = "server-error"
    TIMEOUT = "timeout"
    TOO_LARGE = "too-large"
    TOO_SLOW = "too-slow"
    BLOCKED_ADDRESS = "blocked-address"
    BLOCKED_SCHEME = "blocked-scheme"
    BLOCKED_PATH = "blocked-path"
    NOT_AUDIO = "not-audio"
    TRUNCATED = "truncated"
    UNDECODABLE = "undecodable"
    EMPTY = "empty"
    TOO_SHORT = "too-short"
    TOO_LONG = "too-long"
    NON_FINITE_SAMPLES = "non-finite-samples"
    CRASHED_WORKER = "crashed-worker"
    DAMAGED_OBJECT = "damaged-object"


RETRYABLE_AUDIO_REASONS = frozenset(
    {AudioReason.RATE_LIMITED, AudioReason.SERVER_ERROR, AudioReason.TIMEOUT, AudioReason.TOO_SLOW}
)

REFUSAL_REASONS = ("not-json", "not-an-object", "conflict")


class LeftOutReason(StrEnum):
    """Why a take is not in a dataset, beside the names of the policy's own rules."""

    DUPLICATE = "duplicate"
    BRIDGES_SPLITS = "bridges-splits"
    LEAKS_INTO_TEST = "leaks-into-test"
    NO_CONSENT = "no-consent"
    ERASED = "erased"


class AudioRefusedError(KeeptakeError):
    """Audio that does not enter the store.

    Parameters
    ----------
    reason : AudioReason
        One of the closed list.
    detail : str
        For a person: what was found, and what would be accepted.
    retry_after_s : float, optional
        How long the other side asked us to wait, in seconds.
    """

    def __init__(self, reason: AudioReason, detail: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions pickle their args alone; this one crosses process boundaries with all its fields.
        return (_refused, (self.reason, self.detail, self.retry_after_s))


def _refused(reason: AudioReason, detail: str, retry_after_s: float | None) -> AudioRefusedError:
    return AudioRefusedError(reason, detail, retry_after_s=retry_after_s)
