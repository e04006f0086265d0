"""What openapi.json says of bodies and answers.

Requests are validated by `records.py`, once, for every way in; these schemas describe the same rules to people and generators.
The answers are models for documentation only: routes write their JSON themselves. Belongs here: shapes. Does not: rules.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from keeptake.capture.problems import MEDIA_TYPE, ProblemDocument, problem_document
from keeptake.json_values import MAX_INTEGER, MAX_MAGNITUDE, MAX_TEXT, MIN_MAGNITUDE
from keeptake.records import LATEST_YEAR, MAX_BPM, MAX_COST, MAX_DIMENSIONS, MAX_DURATION_S, MAX_LENGTH, RESERVED_IDS

# ruff: noqa: N815 -- the contract's names are camelCase

_REQUIRED_TEXT = r"^[^\u0000]*[^\s\u0000][^\u0000]*$"
_ANY_TEXT = r"^[^\u0000]*$"
_YEARS = r"^(19[7-9]\d|[2-8]\d{3}|9[0-8]\d{2}|99[0-8]\d|999[0-8])-"


def _text(name: str, *, is_required: bool = False, **more: Any) -> dict[str, Any]:  # noqa: ANN401 -- JSON schema
    kind = {
        "type": "string",
        "maxLength": MAX_LENGTH.get(name, MAX_TEXT),
        "pattern": _REQUIRED_TEXT if is_required else _ANY_TEXT,
    }
    return kind | more if is_required else {"anyOf": [kind, {"type": "null"}], **more}


def _number(most: float, *, is_zero_allowed: bool = True, **more: Any) -> dict[str, Any]:  # noqa: ANN401 -- JSON schema
    zero = [{"const": 0}] if is_zero_allowed else []
    positive = {"type": "number", "minimum": MIN_MAGNITUDE, "maximum": most}
    return {"anyOf": [positive, *zero, {"type": "null"}, {"const": ""}], **more}


_FRACTIONS = [
    {"type": "number", "minimum": MIN_MAGNITUDE, "maximum": MAX_MAGNITUDE},
    {"type": "number", "minimum": -MAX_MAGNITUDE, "maximum": -MIN_MAGNITUDE},
    {"const": 0},
]
_SOUND = {"$ref": "#/components/schemas/SoundJson"}
_SOUND_OBJECT = {
    "type": "object",
    "propertyNames": {"maxLength": MAX_TEXT, "pattern": _ANY_TEXT},
    "additionalProperties": _SOUND,
}
SOUND_JSON: dict[str, Any] = {
    "title": "SoundJson",
    "description": "Any JSON that can be stored and printed again; at most 20 levels deep in all.",
    "anyOf": [
        {"type": "null"},
        {"type": "boolean"},
        {"type": "string", "maxLength": MAX_TEXT, "pattern": _ANY_TEXT},
        {"type": "integer", "minimum": -MAX_INTEGER, "maximum": MAX_INTEGER},
        *_FRACTIONS,
        {"type": "array", "items": _SOUND},
        _SOUND_OBJECT,
    ],
}
_TRUTH = {"anyOf": [{"type": "boolean"}, {"type": "null"}, {"const": ""}]}
_OBJECT = {"anyOf": [_SOUND_OBJECT, {"type": "null"}, {"const": ""}]}
_FEEDBACK = {
    "liked": {**_TRUTH, "description": "Thumb up or down.", "examples": [True]},
    "rating": {
        "anyOf": [{"type": "integer", "minimum": 1, "maximum": 5}, {"type": "null"}, {"const": ""}],
        "description": "Stars.",
        "examples": [5],
    },
    "feedback": _text("feedback", description="In the user's words.", examples=["Perfect trap beat!"]),
    "used": {**_TRUTH, "description": "The take was used in a production.", "examples": [True]},
}
FEEDBACK_BODY: dict[str, Any] = {
    "title": "FeedbackChange",
    "type": "object",
    "properties": _FEEDBACK,
    "additionalProperties": False,
    "minProperties": 1,
    "description": "The given fields are merged; null clears one, absent leaves it as it is.",
    "example": {"liked": True, "rating": 5, "feedback": "Perfect trap beat!", "used": True},
}
GENERATION_BODY: dict[str, Any] = {
    "title": "GenerationMetadataForTraining",
    "type": "object",
    "required": ["userId", "generationId", "userPrompt", "audioUrl", "provider"],
    "description": "A generation as its provider made it. Unknown fields are kept; null and an empty text count as absent.",
    "properties": {
        "userId": _text("userId", is_required=True),
        "generationId": {
            "type": "string",
            "pattern": "^[A-Za-z0-9._:-]{1,128}$",
            "not": {"enum": sorted(RESERVED_IDS)},
        },
        "userPrompt": _text("userPrompt", is_required=True),
        "aiEnhancedPrompt": _text("aiEnhancedPrompt"),
        "generationParams": {
            "description": "What was asked for; an object, or that object as a JSON string.",
            "anyOf": [
                {
                    **_SOUND_OBJECT,
                    "properties": {
                        **{name: _text(name) for name in ("genre", "key", "mood", "style", "model", "customLyrics", "provider")},
                        "bpm": {
                            "anyOf": [
                                {"type": "number", "minimum": MIN_MAGNITUDE, "maximum": MAX_BPM},
                                {"type": "string", "pattern": "^[1-9][0-9]{1,2} BPM$"},
                                {"type": "null"},
                            ],
                            "description": 'A number, or text such as "140 BPM".',
                        },
                        "duration": _number(MAX_DURATION_S),
                        "instrumental": _TRUTH,
                    },
                },
                {"type": "string", "contentMediaType": "application/json"},
                {"type": "null"},
            ],
        },
        "audioUrl": _text("audioUrl", is_required=True, description="Where the audio can be fetched; fetching happens later."),
        "audioStorageKey": _text("audioStorageKey"),
        "duration": _number(
            MAX_DURATION_S, is_zero_allowed=False, description="Seconds; the measured value replaces a missing one."
        ),
        "format": _text("format"),
        "provider": _text("provider", is_required=True),
        "modelUsed": _text("modelUsed"),
        "generationCost": _number(MAX_COST),
        "generationDuration": _number(MAX_COST, description="Seconds that the provider took."),
        "createdAt": {
            "anyOf": [{"type": "string", "format": "date-time", "pattern": _YEARS}, {"type": "null"}],
            "description": f"UTC if it names no zone; a year from 1970 to {LATEST_YEAR}.",
        },
        "analysisMetadata": _OBJECT,
        "spectralFeatures": _OBJECT,
        "audioEmbedding": {
            "anyOf": [{"type": "array", "items": {"anyOf": _FRACTIONS}, "maxItems": MAX_DIMENSIONS}, {"type": "null"}],
        },
        "userFeedback": {"anyOf": [{**_SOUND_OBJECT, "properties": _FEEDBACK}, {"type": "null"}]},
    },
    "propertyNames": _SOUND_OBJECT["propertyNames"],
    "additionalProperties": _SOUND,
    "example": {
        "userId": "user123",
        "generationId": "gen_xyz",
        "userPrompt": "dark trap beat 140 bpm",
        "aiEnhancedPrompt": "dark, trap, 140 BPM - dark trap beat",
        "generationParams": {"genre": "trap", "bpm": 140, "mood": "dark", "duration": 30},
        "audioUrl": "https://cdn.example.com/gen_xyz.mp3",
        "provider": "suno",
        "modelUsed": "sonic-v5",
    },
}
EXPECTED_BODY: dict[str, Any] = {
    "title": "Announcement",
    "type": "object",
    "required": ["provider", "generationIds"],
    "properties": {
        "provider": {"type": "string", "minLength": 1, "maxLength": 512, "pattern": _REQUIRED_TEXT},
        "generationIds": {
            "type": "array",
            "maxItems": 10_000,
            "items": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$", "not": {"enum": sorted(RESERVED_IDS)}},
        },
    },
    "additionalProperties": False,
    "example": {"provider": "suno", "generationIds": ["gen_xyz", "gen_abc"]},
}
BATCH_BODY: dict[str, Any] = {
    "description": "A record a line, at most 1,000 lines and 32 MiB.",
    "example": '{"userId":"u","generationId":"g1","userPrompt":"p","audioUrl":"https://…","provider":"suno"}\n',
}


class SavedAnswer(BaseModel):
    """A generation is durable."""

    success: Literal[True]
    metadataId: str
    generationId: str
    status: str = Field(description="How far the pipeline has come with it.", examples=["captured"])
    replayed: bool = Field(description="The same generation had been saved before.")


class BatchLine(BaseModel):
    """What became of one line."""

    line: int = Field(description="From 1.")
    status: int = Field(description="The HTTP status that a single save would have had.", examples=[200])
    generationId: str | None
    metadataId: str | None = None
    replayed: bool | None = None
    code: str | None = None
    detail: str | None = None
    pointer: str | None = None


class BatchAnswer(BaseModel):
    """What became of every line that is not blank, in order."""

    success: bool = Field(description="No line was refused.")
    saved: int
    replayed: int
    refused: int
    results: list[BatchLine]


class ExpectedAnswer(BaseModel):
    """An announcement was noted."""

    success: Literal[True]
    announced: int = Field(description="New ones among the announced.")
    missing: int = Field(description="Of the announced, not saved yet.")


class UserFeedback(BaseModel):
    """What the user said, as it stands now."""

    liked: bool | None = None
    rating: int | None = Field(None, ge=1, le=5)
    feedback: str | None = None
    used: bool | None = None


class FeedbackAnswer(BaseModel):
    """The merged feedback and the score that follows from it."""

    success: Literal[True]
    generationId: str
    userFeedback: UserFeedback
    qualityScore: float | None = Field(ge=0, le=1, description="null: the audio has not been heard yet.")


class GenerationRecord(BaseModel):
    """GenerationMetadataForTraining as it stands; fields without a value are left out."""

    model_config = ConfigDict(extra="allow")

    id: str
    userId: str
    generationId: str
    userPrompt: str
    aiEnhancedPrompt: str | None = None
    generationParams: dict[str, Any]
    audioUrl: str
    duration: float | None = None
    format: str | None = None
    provider: str
    modelUsed: str | None = None
    usedForTraining: bool
    qualityScore: float | None = None
    createdAt: str
    updatedAt: str
    status: str
    audioStatus: str


class Page(BaseModel):
    """Records, newest first; vectors and claimed analyses stand in the single record only."""

    items: list[GenerationRecord]
    nextCursor: str | None


class SimilarItem(BaseModel):
    """A neighbour."""

    generationId: str
    similarity: float


class SimilarAnswer(BaseModel):
    """Nearest takes by sound."""

    items: list[SimilarItem]
    modelVersion: str


class StoredAnswer(BaseModel):
    """The audio is in the store."""

    success: Literal[True]
    generationId: str
    sha256: str


class Bin(BaseModel):
    """A bin of the histogram."""

    model_config = ConfigDict(populate_by_name=True)

    from_: float = Field(alias="from")
    to: float
    count: int


class Statistics(BaseModel):
    """Counts over everything."""

    totalGenerations: int
    byProvider: dict[str, int]
    withFeedback: int
    averageQualityScore: float | None = Field(ge=0, le=1, description="null: nothing is scored yet.")
    usedForTraining: int
    byGenre: dict[str, int]
    byStatus: dict[str, int]
    qualityHistogram: list[Bin]
    generatedAt: str


class StatisticsAnswer(BaseModel):
    """Statistics, at most a minute old."""

    success: Literal[True]
    statistics: Statistics


class Readiness(BaseModel):
    """Whether calls can be answered, part by part."""

    status: Literal["ready", "failing"]
    failing: list[str]
    checks: dict[str, str]


class Liveness(BaseModel):
    """The process answers."""

    status: Literal["ok"]


_MEANINGS = {
    400: "The body is not JSON, or did not arrive whole.",
    401: "No key, or one that is unknown, revoked or expired.",
    403: "The key lacks the scope.",
    404: "There is no such thing.",
    405: "The path has other methods.",
    408: "The body did not arrive in time.",
    409: "In conflict with what is known.",
    413: "The body is too large.",
    415: "Another media type or encoding than the accepted ones.",
    416: "No part of the audio lies in the range.",
    422: "A field or parameter is not what it should be; `errors` points at it.",
    429: "Too many calls: repeat after `Retry-After` seconds.",
    500: "The service failed; its log has the request's id.",
    503: "The ledger or the store is away: repeat after `Retry-After` seconds.",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Documentation of error answers."""
    documented: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        path, request_id = "/api/training-metadata", "7f3a9c0d1e2b4a58"
        shown = problem_document(status, "name-of-the-case", _MEANINGS[status], instance=path, request_id=request_id)
        content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}, "example": shown}}
        documented[status] = {"description": _MEANINGS[status], "content": content}
    return documented


def body(schema: dict[str, Any], media_type: str = "application/json", *, is_required: bool = True) -> dict[str, Any]:
    """Documentation of a request body that the route reads itself."""
    return {"requestBody": {"required": is_required, "content": {media_type: {"schema": schema}}}}


PROBLEM_SCHEMA = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
