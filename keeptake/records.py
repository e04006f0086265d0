"""What is a generation, and is this one? The typed records, and the guards at the door.

Conventions: fields are snake_case here and camelCase outside; seconds and times in UTC carry it in their names and types. `null`
is the same as absent, and so is an empty string. Values stay as they were claimed: the door refuses or accepts, it never mends.
Whatever was accepted can be stored in Postgres as text and JSONB and printed as JSON again: no NUL, no lone surrogate, no
number that a double or a bigint cannot hold, nothing nested without end.

Belongs here: what makes a record believable, its identity, and how ledger rows are shown. Does not: where records come from
(`sources/`), repeats and conflicts with what is known (`ledger/generations.py`), whether audio may be fetched (`custody/`).
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from keeptake.errors import REFUSAL_REASONS
from keeptake.json_values import (
    JSON,
    MAX_TEXT,
    Path,
    RepeatedName,
    UnsoundJsonError,
    check_json,
    check_text,
    kind_of,
    number_in,
    object_in,
    parse_json,
    pointer_to,
    text_in,
    truth_in,
)

MAX_RECORD_BYTES = 1 << 20
MAX_LENGTH = {"generationId": 128, "userId": 512, "provider": 512, "format": 64}  # 512 × 4 bytes still fit a btree page's third
MAX_DURATION_S = 1e6
MAX_BPM = 1000
MAX_DIMENSIONS = 16_384
SMALLEST_REAL = 1e-37  # of an embedding: below it Postgres refuses a REAL instead of rounding it to 0
MAX_COST = 1e9
EARLIEST_YEAR, LATEST_YEAR = 1970, 9998  # the last year is left out: another time zone would push it past what a datetime holds

REQUIRED = ("userId", "generationId", "userPrompt", "audioUrl", "provider")
OPTIONAL_TEXT = ("aiEnhancedPrompt", "audioStorageKey", "format", "modelUsed")
CAPTURED = (*REQUIRED, *OPTIONAL_TEXT, "generationParams", "duration", "generationCost", "generationDuration", "createdAt")
CLAIMED_ANALYSIS = ("analysisMetadata", "spectralFeatures", "audioEmbedding")  # kept as claimed, shown as measured
DERIVED = (
    "id",
    "usedForTraining",
    "trainingEpoch",
    "qualityScore",
    "updatedAt",
)  # ours to say: a claim of one is kept in `extra`
PARAM_TEXT = ("genre", "key", "mood", "style", "model", "provider", "customLyrics")
PARAMS = (*PARAM_TEXT, "bpm", "duration", "instrumental")
FEEDBACK = ("liked", "rating", "feedback", "used")

_CLAIMED_COLUMNS = {
    "analysisMetadata": "analysis_metadata",
    "spectralFeatures": "spectral_features",
    "audioEmbedding": "audio_embedding",
}
_ANALYSIS_GROUPS = {
    "vocalCharacteristics": ("has_vocals", "vocals_probability", "vocal_share"),
    "rhythmCharacteristics": (
        "tempo_bpm",
        "tempo_confidence",
        "rhythm_confidence",
        "tempo_stability",
        "beats_per_bar",
        "onset_rate_hz",
        "has_tempo_change",
    ),
    "styleMetadata": ("genre", "mood", "key", "key_confidence", "loudness_lufs", "dynamic_range", "is_loop", "loop_bars"),
}
_OWN_DETAIL = {
    "missing-audioUrl": "Missing audio URL",
    "missing-provider": "Missing provider",
    "invalid-duration": "Invalid duration",
}  # the system's first clients compare these three texts
_FIELDS = dict.fromkeys((*CAPTURED, *CLAIMED_ANALYSIS, *DERIVED, "userFeedback", *PARAMS, *FEEDBACK, "extra", "record"))
RECORD_REFUSALS = frozenset(
    (
        *REFUSAL_REASONS,
        *(f"missing-{field}" for field in REQUIRED),
        *(f"{kind}-{field}" for field in _FIELDS for kind in ("invalid", "too-long")),
    )
)
"""The closed list of why a record may be refused; `extra` stands for any unknown field, `record` for the record as a whole."""

_PLACED = frozenset((*CAPTURED, *CLAIMED_ANALYSIS, "userFeedback"))  # fields that have a place of their own
_GENERATION_ID = re.compile(r"[A-Za-z0-9._:-]+")
# Path segments of the API, and those that clients resolve before they send a path.
RESERVED_IDS = frozenset({"export", "statistics", "batch", "expected", ".", ".."})
_BPM_TEXT = re.compile(r"[-+]?\d{1,9}(?:\.\d{1,9})?")


class Flag(StrEnum):
    """What is odd about an accepted record, kept on its row."""

    PROVIDER_MISMATCH = "provider-mismatch"
    CREATED_IN_FUTURE = "created-in-future"


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a user said about a take; None where nothing was said."""

    liked: bool | None = None
    rating: int | None = None
    feedback: str | None = None
    used: bool | None = None

    def given(self) -> dict[str, bool | int | str | None]:
        """Return the fields that say something."""
        return {name: value for name in FEEDBACK if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, slots=True)
class Generation:
    """A take as it was captured: nothing in here was measured by us."""

    generation_id: str
    user_id: str
    user_prompt: str
    ai_enhanced_prompt: str | None
    generation_params: dict[str, JSON]
    audio_url: str
    audio_storage_key: str | None
    duration_s: float | None
    format: str | None
    provider: str
    model_used: str | None
    generation_cost: float | None
    generation_duration_s: float | None
    created_at: datetime | None
    analysis_metadata: dict[str, JSON] | None
    spectral_features: dict[str, JSON] | None
    audio_embedding: list[float] | None
    extra: dict[str, JSON]


class Accepted(NamedTuple):
    """A record that may enter the ledger."""

    generation: Generation
    feedback: Feedback | None
    flags: tuple[Flag, ...]


class Refused(NamedTuple):
    """A record that may not: why, for a program and for a person, and where in the record (RFC 6901)."""

    generation_id: str | None
    reason: str
    detail: str
    pointer: str


def read_record(raw: bytes | Mapping[str, JSON], *, now: datetime | None = None) -> Accepted | Refused:
    """Believe a record or refuse it.

    Parameters
    ----------
    raw : bytes or Mapping
        One JSON object in UTF-8, or such an object already parsed.
    now : datetime, optional
        What counts as the present when a `createdAt` in the future is flagged.

    Returns
    -------
    Accepted or Refused
        The reason is one of `RECORD_REFUSALS`; repeats and conflicts are for the ledger to find.
    """
    fields: dict[str, JSON] = {}
    try:
        fields = _object_in(raw)
        for name, value in fields.items():
            check_text(name, (name,))
            if name != "generationParams" or type(value) is not str:  # as a JSON string it is checked once parsed
                check_json(value, (name,))
        return _accept(fields, now or datetime.now(UTC))
    except UnsoundJsonError as error:
        return _refused(error, fields)


def read_feedback(raw: bytes | Mapping[str, JSON]) -> dict[str, bool | int | str | None] | Refused:
    """Read a change of feedback: the fields that were given, None for one to clear.

    Unlike in a record, `null` differs from absent here; an emptied text box (`""`) clears as well. A field that we do not know
    is refused: there is no place to keep it, and a client that misspells one should hear of it.
    """
    fields: dict[str, JSON] = {}
    try:
        fields = _object_in(raw)
        for name, value in fields.items():
            check_json(value, (name,))
            if name not in FEEDBACK:
                raise UnsoundJsonError("invalid", (name,), f"expected any of {', '.join(FEEDBACK)}, found {name[:40]!r}")
        given = _feedback_in(fields, ())
    except UnsoundJsonError as error:
        return _refused(error, fields)
    return {name: given.get(name) for name in FEEDBACK if name in fields}


def identity(generation: Generation) -> bytes:
    """Hash what makes a capture the same capture: SHA-256 of the canonical JSON of its fields, 32 bytes.

    Feedback and derived fields are left out: newer feedback on a known generation is an update, not a conflict. `30` and `30.0`
    are one number, `null` and an empty string are no value, and unknown fields count.
    """
    created_at = generation.created_at
    fields = [
        generation.generation_id,
        generation.user_id,
        generation.user_prompt,
        generation.ai_enhanced_prompt,
        _without_absent(generation.generation_params),
        generation.audio_url,
        generation.duration_s,
        generation.format,
        generation.provider,
        generation.model_used,
        generation.generation_cost,
        generation.generation_duration_s,
        None if created_at is None else created_at.isoformat(),
        {name: value for name, value in generation.extra.items() if name not in DERIVED and name != "userFeedback"},
    ]
    return hashlib.sha256(json.dumps(_canonical(fields), sort_keys=True, separators=(",", ":")).encode()).digest()


def is_generation_id(text: str) -> bool:
    """Whether a text is spelled as an id may be.

    >>> is_generation_id("gen_xyz"), is_generation_id("gen xyz")
    (True, False)
    """
    return _GENERATION_ID.fullmatch(text) is not None and len(text) <= MAX_LENGTH["generationId"]


def file_id(generation_id: str) -> str:
    """Name a take's files without its provider's characters: 16 hex digits.

    >>> file_id("gen_xyz")
    'cce6f3be99355ff3'
    """
    return hashlib.sha256(generation_id.encode()).hexdigest()[:16]


def public_record(row: Mapping[str, Any]) -> dict[str, JSON]:
    """Show a take: values as claimed stay as claimed, analysis fields are the measured ones.

    Parameters
    ----------
    row : Mapping
        The columns of `generations`, and under `audio` and `features` the rows that belong to its audio, under `mfcc_mean` and
        `chroma` those of its spectrum and tonal parts, under `embedding` the current vector: each missing or None until it
        exists.

    Returns
    -------
    dict
        `GenerationMetadataForTraining` in camelCase, without the fields that have no value. `duration` and `format` are the
        claimed ones, else the measured ones, else what the parameters and the URL's ending say.
    """
    audio, features = row.get("audio") or {}, row.get("features") or {}
    params = row["generation_params"]
    claimed = {name: row.get(column) for name, column in _CLAIMED_COLUMNS.items()}
    shown = {
        "id": str(row["id"]),
        "userId": row["user_id"],
        "generationId": row["generation_id"],
        "userPrompt": row["user_prompt"],
        "aiEnhancedPrompt": row["ai_enhanced_prompt"],
        "generationParams": params,
        "audioUrl": row["audio_url"],
        "audioStorageKey": audio.get("storage_key") or row["audio_storage_key"],
        "duration": as_given(row["duration_s"] or audio.get("duration_s") or params.get("duration") or None),
        "format": row["format"] or audio.get("format") or ending_of(row["audio_url"]),
        "analysisMetadata": _measured_analysis(features),
        "spectralFeatures": _measured_spectrum(features, row),
        "audioEmbedding": row.get("embedding"),
        "userFeedback": {name: row[name] for name in FEEDBACK if row[name] is not None} or None,
        "provider": row["provider"],
        "modelUsed": row["model_used"],
        "generationCost": as_given(row["generation_cost"]),
        "generationDuration": as_given(row["generation_duration_s"]),
        "usedForTraining": row["used_for_training"],
        "trainingEpoch": row["training_epoch"],
        "qualityScore": row["quality_score"],
        "createdAt": rfc3339(row["created_at"]),
        "updatedAt": rfc3339(row["updated_at"]),
        "status": row["status"],
        "statusReason": row["status_reason"],
        "audioStatus": row["audio_status"],
        "audioReason": row["audio_reason"],
        "datasetVersion": row["dataset_version"],
        "flags": list(row["flags"]),
        "claimed": _without_absent(claimed) or None,
        "extra": row["extra"] or None,
    }
    return {name: value for name, value in shown.items() if value is not None}


def stated_bpm(generation_params: Mapping[str, JSON]) -> float | None:
    """Tempo that the parameters ask for, in beats per minute; text such as "140 BPM" counts by its first number."""
    bpm = generation_params.get("bpm")
    if isinstance(bpm, str):
        found = _BPM_TEXT.search(bpm)
        return float(found.group()) if found else None
    return None if bpm is None else float(bpm)


def as_given(number: float | None) -> float | int | None:
    """Undo what a column of doubles does to whole numbers, so that they print as they came: 30, not 30.0."""
    return int(number) if number is not None and number == int(number) else number


def rfc3339(time: datetime) -> str:
    """Write a time in UTC, with milliseconds only where there are some."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds" if time.microsecond else "seconds").replace("+00:00", "Z")


def ending_of(audio_url: str) -> str | None:
    """Format that the URL's path ends in, such as `mp3`; None where it ends in none."""
    try:
        name = urlsplit(audio_url).path.rsplit("/", 1)[-1]
    except ValueError:
        return None
    _, dot, ending = name.rpartition(".")
    return ending.lower() if dot and ending.isalnum() and len(ending) <= 5 else None


def _measured_analysis(features: Mapping[str, Any]) -> dict[str, JSON] | None:
    groups = {
        group: _without_absent({_camel_case(column): features.get(column) for column in columns})
        for group, columns in _ANALYSIS_GROUPS.items()
    }
    return _without_absent({group: values or None for group, values in groups.items()}) or None


def _measured_spectrum(features: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, JSON] | None:
    return (
        _without_absent(
            {
                "spectralCentroid": features.get("spectral_centroid_hz"),
                "spectralRolloff": features.get("spectral_rolloff_hz"),
                "mfcc": row.get("mfcc_mean"),
                "chromagram": row.get("chroma"),
            }
        )
        or None
    )


def _camel_case(column: str) -> str:
    first, *others = column.split("_")
    return first + "".join(other.capitalize() for other in others)


def _refused(error: UnsoundJsonError, fields: Mapping[str, JSON]) -> Refused:
    is_whole = not error.path and error.kind in REFUSAL_REASONS
    reason = error.kind if is_whole else f"{error.kind}-{_field_named_by(error.path)}"
    return Refused(_readable_id(fields), reason, _OWN_DETAIL.get(reason, error.detail), pointer_to(error.path))


def _object_in(raw: bytes | Mapping[str, JSON]) -> dict[str, JSON]:
    if isinstance(raw, Mapping):
        return dict(raw)
    if len(raw) > MAX_RECORD_BYTES:
        raise UnsoundJsonError("too-long", (), f"a record has at most {MAX_RECORD_BYTES} bytes, found {len(raw)}")
    value = parse_json(raw)
    if type(value) is RepeatedName:
        raise UnsoundJsonError("invalid", (value.name,), f"the field {value.name[:40]!r} stands there twice")
    if type(value) is not dict:
        raise UnsoundJsonError("not-an-object", (), f"expected a JSON object, found {kind_of(value)}")
    return value


def _accept(fields: dict[str, JSON], now: datetime) -> Accepted:
    generation_id = _id_in(fields)
    text = {name: text_in(fields, name, most=MAX_LENGTH.get(name, MAX_TEXT)) for name in (*REQUIRED, *OPTIONAL_TEXT)}
    for name in REQUIRED:
        if text[name] is None:
            raise UnsoundJsonError("missing", (name,), f"the field {name} is required and may not be empty")
    params = _params_in(fields.get("generationParams"))
    created_at = _time_in(fields.get("createdAt"))
    extra = _without_absent({name: value for name, value in fields.items() if name not in _PLACED})
    feedback = _record_feedback_in(object_in(fields, "userFeedback"), extra)
    flags = []
    if params.get("provider") and params["provider"] != text["provider"]:
        flags.append(Flag.PROVIDER_MISMATCH)
    if created_at is not None and created_at > now:
        flags.append(Flag.CREATED_IN_FUTURE)
    generation = Generation(
        generation_id=generation_id,
        user_id=text["userId"] or "",
        user_prompt=text["userPrompt"] or "",
        ai_enhanced_prompt=text["aiEnhancedPrompt"],
        generation_params=params,
        audio_url=text["audioUrl"] or "",
        audio_storage_key=text["audioStorageKey"],
        duration_s=number_in(fields, "duration", most=MAX_DURATION_S, is_zero_allowed=False),
        format=text["format"],
        provider=text["provider"] or "",
        model_used=text["modelUsed"],
        generation_cost=number_in(fields, "generationCost", most=MAX_COST),
        generation_duration_s=number_in(fields, "generationDuration", most=MAX_COST),
        created_at=created_at,
        analysis_metadata=object_in(fields, "analysisMetadata"),
        spectral_features=object_in(fields, "spectralFeatures"),
        audio_embedding=_vector_in(fields),
        extra=extra,
    )
    return Accepted(generation, feedback, tuple(flags))


def _id_in(fields: Mapping[str, JSON]) -> str:
    name = text_in(fields, "generationId", most=MAX_LENGTH["generationId"])
    if name is None:
        raise UnsoundJsonError("missing", ("generationId",), "the field generationId is required and may not be empty")
    if not is_generation_id(name):
        raise UnsoundJsonError("invalid", ("generationId",), "expected 1 to 128 of A-Z a-z 0-9 . _ : -")
    if name in RESERVED_IDS:
        raise UnsoundJsonError("invalid", ("generationId",), f"{name!r} is taken by the service's own paths")
    return name


def _readable_id(fields: Mapping[str, JSON]) -> str | None:
    """Tell whose record was refused, as far as that can be believed."""
    try:
        return _id_in(fields)
    except UnsoundJsonError:
        return None


def _params_in(value: JSON) -> dict[str, JSON]:
    path = ("generationParams",)
    if type(value) is str:
        value = parse_json(value, path) if value and not value.isspace() else None
        check_json(value, path)
    if value is None:
        return {}
    if type(value) is not dict:
        raise UnsoundJsonError("invalid", path, f"expected an object, or an object as a JSON string, found {kind_of(value)}")
    for name in PARAM_TEXT:
        text_in(value, name, path, most=MAX_LENGTH.get(name, MAX_TEXT))
    truth_in(value, "instrumental", path)
    number_in(value, "duration", path, most=MAX_DURATION_S)  # 0 stands for "not asked" in real records
    if type(value.get("bpm")) is not str:
        number_in(value, "bpm", path, most=MAX_BPM, is_zero_allowed=False)
    elif value["bpm"] and not value["bpm"].isspace() and not 0 < (stated_bpm(value) or 0) <= MAX_BPM:
        raise UnsoundJsonError(
            "invalid", (*path, "bpm"), f"expected a positive tempo such as 140 or '140 BPM', found {value['bpm'][:40]!r}"
        )
    return value


def _record_feedback_in(value: dict[str, JSON] | None, extra: dict[str, JSON]) -> Feedback | None:
    if value is None:
        return None
    unknown = {name: inner for name, inner in value.items() if name not in FEEDBACK}
    if unknown:
        extra["userFeedback"] = unknown
    given = _feedback_in(value, ("userFeedback",))
    return Feedback(**given) if given else None


def _feedback_in(fields: Mapping[str, JSON], path: Path) -> dict[str, Any]:
    rating = number_in(fields, "rating", path, least=1, most=5)
    if rating is not None and rating != int(rating):
        raise UnsoundJsonError("invalid", (*path, "rating"), f"expected a whole number from 1 to 5, found {rating}")
    given = {
        "liked": truth_in(fields, "liked", path),
        "rating": None if rating is None else int(rating),
        "feedback": text_in(fields, "feedback", path),
        "used": truth_in(fields, "used", path),
    }
    return {name: value for name, value in given.items() if value is not None}


def _vector_in(fields: Mapping[str, JSON]) -> list[float] | None:
    path, vector = ("audioEmbedding",), fields.get("audioEmbedding")
    if vector is None or vector == "":
        return None
    if type(vector) is not list:
        raise UnsoundJsonError("invalid", path, f"expected an array of numbers, found {kind_of(vector)}")
    if len(vector) > MAX_DIMENSIONS:
        raise UnsoundJsonError("too-long", path, f"at most {MAX_DIMENSIONS} numbers, found {len(vector)}")
    for index, value in enumerate(vector):
        if type(value) is not float and type(value) is not int:
            raise UnsoundJsonError("invalid", (*path, str(index)), f"expected a number, found {kind_of(value)}")
    return [float(value) if abs(value) > SMALLEST_REAL else 0.0 for value in vector]


def _time_in(value: JSON) -> datetime | None:
    if value is None or value == "":
        return None
    detail = "expected a time such as 2026-11-22T18:30:00Z"
    if type(value) is not str:
        raise UnsoundJsonError("invalid", ("createdAt",), f"{detail}, found {kind_of(value)}")
    try:
        time = datetime.fromisoformat(value.upper())  # RFC 3339 allows t and z
        time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise UnsoundJsonError("invalid", ("createdAt",), f"{detail}, found {value[:40]!r}") from None
    if not EARLIEST_YEAR <= time.year <= LATEST_YEAR:
        raise UnsoundJsonError(
            "invalid", ("createdAt",), f"expected a year from {EARLIEST_YEAR} to {LATEST_YEAR}, found {time.year}"
        )
    return time


def _field_named_by(path: Path) -> str:
    """Field that a refusal names: the innermost one that we know."""
    if not path:
        return "record"
    if path[0] in FEEDBACK:  # of a feedback call, where the four stand outermost
        return path[0]
    groups = {"generationParams": PARAMS, "userFeedback": FEEDBACK}
    if len(path) > 1 and path[1] in groups.get(path[0], ()):
        return path[1]
    return path[0] if path[0] in (*CAPTURED, *CLAIMED_ANALYSIS, *DERIVED, "userFeedback") else "extra"


def _without_absent(fields: Mapping[str, JSON]) -> dict[str, JSON]:
    return {name: value for name, value in fields.items() if value is not None and value != ""}


def _canonical(value: JSON) -> JSON:
    if isinstance(value, float):
        return as_given(value)
    if isinstance(value, dict):
        return {name: _canonical(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_canonical(inner) for inner in value]
    return value
