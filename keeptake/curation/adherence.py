"""Does a take do what was asked? Each term of the request against what was heard.

Asked is what the parameters say; where they are silent, what the words of the prompt say (`prompts.py`), the person's before the
enhanced ones. Each term gets a verdict, or the reason why it cannot be judged, and never both.

=========== ====== ======================================================================================================
term        weight verdicts and what they are worth
=========== ====== ======================================================================================================
tempo       3      exact 1 (within 4 %), half 0.7, double 0.7 (beats may be counted either way), wrong 0
vocals      3      as-asked 1, missing 0, unwanted 0
key         2      exact 1, fifth 0.5, relative 0.3, wrong 0 (worth as in MIREX)
text-audio  2      cosine, the joint embedder's similarity of prompt and sound, brought to [0, 1]
duration    1      exact 1 (within 10 % or 2 s), longer or shorter: the lesser over the greater
genre       1      as-asked 1, related 0.5, other 0
mood        0.5    as-asked 1, other 0
=========== ====== ======================================================================================================

The total is the weighted mean of what could be judged; null where nothing could. Tempo and vocals weigh most: they are what
people ask for in numbers and plain words, and what is heard most reliably; genre and mood least: a tagger's vocabulary is
smaller than people's. A verdict is "wrong" only where the hearing is sure of what it heard instead.

Reasons: `not-asked`, `contradictory-request`, `not-heard`, `unsure`, `tempo-changes`, `unknown-word` (a genre or mood that no
tag of ours stands for), `not-joint` (no embedder of text and sound).

Belongs here: verdicts and total, as Polars expressions over whole tables. Does not: which takes lag (`ledger/adherence.py`).
"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from keeptake.audio.tonal import PITCH_CLASSES
from keeptake.curation.prompts import TEMPO_RANGE_BPM, Wish, parse_key, parse_prompt
from keeptake.curation.styles import genres_of, moods_of, related_to

ADHERENCE_VERSION = "2"

WEIGHTS = {"tempo": 3.0, "vocals": 3.0, "key": 2.0, "text_audio": 2.0, "duration": 1.0, "genre": 1.0, "mood": 0.5}
WORTH = {"half": 0.7, "double": 0.7, "fifth": 0.5, "relative": 0.3, "related": 0.5, "exact": 1.0, "as-asked": 1.0}
CONTRADICTIONS = ("wrong", "missing", "unwanted")

TEMPO_TOLERANCE = 0.04
LEAST_TEMPO_CONFIDENCE = 0.5  # below, another tempo than the asked one may well be the true one
# Where trackers err, they take three beats for two or four; "wrong" at such a ratio needs a surer ear than elsewhere.
METRICAL_RATIOS = (1 / 3, 2 / 3, 3 / 4, 4 / 3, 3 / 2, 3.0)
METRICAL_TOLERANCE = 0.02
METRICAL_CONFIDENCE = 0.9
LEAST_KEY_CONFIDENCE = 0.05
VOCALS_DOUBT = (0.4, 0.6)  # between them a voice is neither heard nor not heard
DURATION_TOLERANCE = 0.1
DURATION_TOLERANCE_S = 2.0
_DECIMALS = 6  # a total is compared with thresholds: sums of tenths must not miss them by a rounding error
COSINE_RANGE = (0.0, 0.5)  # CLAP-like embedders: unrelated text about 0, a good description about 0.5

ASKED = {
    "asked_tempo_low_bpm": pl.Float64(),
    "asked_tempo_high_bpm": pl.Float64(),
    "asked_key": pl.String(),
    "asked_vocals": pl.Boolean(),
    "asked_duration_s": pl.Float64(),
    "asked_genre": pl.String(),
    "asked_mood": pl.String(),
    "conflicts": pl.List(pl.String()),
}
HEARD = {
    "tempo_bpm": pl.Float64(),
    "tempo_confidence": pl.Float64(),
    "has_tempo_change": pl.Boolean(),
    "key": pl.String(),
    "key_confidence": pl.Float64(),
    "vocals_probability": pl.Float64(),
    "duration_s": pl.Float64(),
    "genre": pl.String(),
    "mood": pl.String(),
    "text_audio_cosine": pl.Float64(),
}


def asked(params: Mapping[str, Any] | None, user_prompt: str | None, enhanced_prompt: str | None = None) -> dict[str, Any]:
    """What one take was asked for.

    Parameters
    ----------
    params : Mapping or None
        `generationParams` as claimed; a value that makes no sense (a tempo of 0, a word for a number) says nothing.
    user_prompt, enhanced_prompt : str or None

    Returns
    -------
    dict
        The columns of `ASKED`; None where nothing was asked. `conflicts` names the terms on which the request contradicts itself.
    """
    params = params or {}
    words = _words(user_prompt or "", enhanced_prompt or "")
    tempo_bpm = _tempo(params.get("bpm")) or words.tempo_bpm
    key = parse_key(_text(params, "key") or "") or words.key
    by_parameter = _vocals(params)
    has_vocals = words.has_vocals if by_parameter is None else by_parameter
    conflicts = {"tempo": tempo_bpm is None, "key": key is None, "vocals": by_parameter is None}
    found = [term for term in words.conflicts if conflicts[term]]
    if words.has_vocals not in (None, has_vocals):
        has_vocals, found = None, [*found, "vocals"]
    return {
        "asked_tempo_low_bpm": tempo_bpm[0] if tempo_bpm else None,
        "asked_tempo_high_bpm": tempo_bpm[1] if tempo_bpm else None,
        "asked_key": key,
        "asked_vocals": has_vocals,
        "asked_duration_s": _number(params.get("duration")),
        "asked_genre": _text(params, "genre") or _text(params, "style"),
        "asked_mood": _text(params, "mood"),
        "conflicts": found,
    }


def judge(table: pl.DataFrame) -> pl.DataFrame:
    """Judge every take of a table.

    Parameters
    ----------
    table : pl.DataFrame
        The columns of `ASKED`, and any of `HEARD`; a column of `HEARD` that is missing was not heard.

    Returns
    -------
    pl.DataFrame
        The table with, for each term of `WEIGHTS`, `TERM_verdict` and `TERM_reason` (one of them null), and `adherence` in
        [0, 1], null where no term could be judged.
    """
    missing = [pl.lit(None, dtype).alias(name) for name, dtype in HEARD.items() if name not in table.columns]
    judged = _with_styles(table.with_columns(*missing)).with_columns(**{f"{term}_reason": _reason(term) for term in WEIGHTS})
    may = {term: pl.col(f"{term}_reason").is_null() for term in WEIGHTS}
    judged = judged.with_columns(**{f"{term}_verdict": pl.when(may[term]).then(verdict()) for term, verdict in _VERDICTS.items()})
    unsure = pl.col("tempo_verdict").eq("wrong") & pl.col("tempo_confidence").fill_null(0).lt(_needed_tempo_confidence())
    judged = judged.with_columns(
        tempo_reason=pl.when(unsure).then(pl.lit("unsure")).otherwise("tempo_reason"),
        tempo_verdict=pl.when(~unsure.fill_null(False)).then("tempo_verdict"),
    )
    worth = {term: _worth(term) for term in WEIGHTS}
    weight = pl.sum_horizontal(pl.when(worth[term].is_not_null()).then(WEIGHTS[term]).otherwise(0.0) for term in WEIGHTS)
    total = pl.sum_horizontal(WEIGHTS[term] * worth[term].fill_null(0.0) for term in WEIGHTS) / weight
    judged = judged.with_columns(adherence=pl.when(weight > 0).then(total.clip(0.0, 1.0).round(_DECIMALS)))
    return judged.drop(*(name for name in HEARD if name not in table.columns), *_STYLE_COLUMNS)


def terms_of(row: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What a row of `judge` says, a term at a time: verdict, asked, heard, reason; what the ledger and the API show."""
    low, high = row["asked_tempo_low_bpm"], row["asked_tempo_high_bpm"]
    tempo_bpm = low if low == high else [low, high]
    pairs = {
        "tempo": (tempo_bpm, row.get("tempo_bpm")),
        "vocals": (row["asked_vocals"], row.get("vocals_probability")),
        "key": (row["asked_key"], row.get("key")),
        "text_audio": (None, row.get("text_audio_cosine")),
        "duration": (row["asked_duration_s"], row.get("duration_s")),
        "genre": (row["asked_genre"], row.get("genre")),
        "mood": (row["asked_mood"], row.get("mood")),
    }
    return {
        term: {"verdict": row[f"{term}_verdict"], "asked": wish, "heard": heard, "reason": row[f"{term}_reason"]}
        for term, (wish, heard) in pairs.items()
    }


def _words(user_prompt: str, enhanced_prompt: str) -> Wish:
    """The person's words, and the enhanced ones where the person's are silent on a term."""
    first = parse_prompt(user_prompt)
    if not enhanced_prompt:
        return first
    second = parse_prompt(enhanced_prompt)
    return Wish(
        tempo_bpm=first.tempo_bpm if first.tempo_bpm or "tempo" in first.conflicts else second.tempo_bpm,
        key=first.key if first.key or "key" in first.conflicts else second.key,
        has_vocals=first.has_vocals if first.has_vocals is not None or "vocals" in first.conflicts else second.has_vocals,
        conflicts=first.conflicts,
    )


def _vocals(params: Mapping[str, Any]) -> bool | None:
    if isinstance(params.get("instrumental"), bool):
        return not params["instrumental"]
    return True if _text(params, "customLyrics") else None


def _text(params: Mapping[str, Any], name: str) -> str | None:
    value = params.get(name)
    return value.strip() or None if isinstance(value, str) else None


def _number(value: object) -> float | None:
    """A positive finite number, also one that was written as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if 0 < number < float("inf") else None


def _tempo(value: object) -> tuple[float, float] | None:
    number = _number(value)
    if number is None and isinstance(value, str):
        return parse_prompt(value).tempo_bpm  # "140 BPM", "120-128 bpm"
    return (number, number) if number is not None and TEMPO_RANGE_BPM[0] <= number <= TEMPO_RANGE_BPM[1] else None


_STYLE_COLUMNS = ("genres", "genres_related", "moods")


def _with_styles(table: pl.DataFrame) -> pl.DataFrame:
    """Families of the asked genres and moods; a table holds few different words, each looked up once."""
    genres = table["asked_genre"].unique().drop_nulls().to_list()
    moods = table["asked_mood"].unique().drop_nulls().to_list()
    names = pl.List(pl.String())
    of_genre = pl.DataFrame(
        {
            "asked_genre": genres,
            "genres": [genres_of(text) for text in genres],
            "genres_related": [related_to(genres_of(text)) for text in genres],
        },
        schema={"asked_genre": pl.String(), "genres": names, "genres_related": names},
    )
    of_mood = pl.DataFrame(
        {"asked_mood": moods, "moods": [moods_of(text) for text in moods]}, schema={"asked_mood": pl.String(), "moods": names}
    )
    joined = table.join(of_genre, on="asked_genre", how="left", maintain_order="left")
    return joined.join(of_mood, on="asked_mood", how="left", maintain_order="left")


def _reason(term: str) -> pl.Expr:
    """Why a term cannot be judged; null where it can."""
    wish, heard, more = _NEEDS[term]
    return pl.coalesce(
        pl.when(pl.col("conflicts").list.contains(term)).then(pl.lit("contradictory-request")),
        *([pl.when(pl.col(wish).is_null()).then(pl.lit("not-asked"))] if wish else []),
        *[pl.when(condition).then(pl.lit(reason)) for reason, condition in more.items() if reason in _BEFORE_HEARING],
        pl.when(pl.col(heard).is_null()).then(pl.lit("not-heard" if wish else "not-joint")),
        *[pl.when(condition).then(pl.lit(reason)) for reason, condition in more.items() if reason not in _BEFORE_HEARING],
    )


_BEFORE_HEARING = ("unknown-word",)
_NEEDS: dict[str, tuple[str | None, str, dict[str, pl.Expr]]] = {
    "tempo": ("asked_tempo_low_bpm", "tempo_bpm", {"tempo-changes": pl.col("has_tempo_change")}),
    "vocals": ("asked_vocals", "vocals_probability", {"unsure": pl.col("vocals_probability").is_between(*VOCALS_DOUBT)}),
    "key": ("asked_key", "key", {"unsure": pl.col("key_confidence").lt(LEAST_KEY_CONFIDENCE)}),
    "text_audio": (None, "text_audio_cosine", {}),
    "duration": ("asked_duration_s", "duration_s", {}),
    "genre": ("asked_genre", "genre", {"unknown-word": pl.col("genres").list.len().eq(0)}),
    "mood": ("asked_mood", "mood", {"unknown-word": pl.col("moods").list.len().eq(0)}),
}


def _tempo_verdict() -> pl.Expr:
    def within(factor: float) -> pl.Expr:
        low = pl.col("asked_tempo_low_bpm") * factor * (1 - TEMPO_TOLERANCE)
        return pl.col("tempo_bpm").is_between(low, pl.col("asked_tempo_high_bpm") * factor * (1 + TEMPO_TOLERANCE))

    return (
        pl.when(within(1))
        .then(pl.lit("exact"))
        .when(within(0.5))
        .then(pl.lit("half"))
        .when(within(2))
        .then(pl.lit("double"))
        .otherwise(pl.lit("wrong"))
    )


def _needed_tempo_confidence() -> pl.Expr:
    """How sure the ear must be to call a tempo wrong."""
    ratio = pl.col("tempo_bpm") / ((pl.col("asked_tempo_low_bpm") + pl.col("asked_tempo_high_bpm")) / 2)
    metrical = pl.any_horizontal((ratio / known - 1).abs() <= METRICAL_TOLERANCE for known in METRICAL_RATIOS)
    return pl.when(metrical).then(METRICAL_CONFIDENCE).otherwise(LEAST_TEMPO_CONFIDENCE)


def _vocals_verdict() -> pl.Expr:
    has_vocals = pl.col("vocals_probability") > 0.5
    return (
        pl.when(has_vocals == pl.col("asked_vocals"))
        .then(pl.lit("as-asked"))
        .when(has_vocals)
        .then(pl.lit("unwanted"))
        .otherwise(pl.lit("missing"))
    )


_KEY_NUMBER = {
    f"{tonic} {mode}": i + 12 * (mode == "minor") for mode in ("major", "minor") for i, tonic in enumerate(PITCH_CLASSES)
}


def _key_verdict() -> pl.Expr:
    wish, heard = (pl.col(name).replace_strict(_KEY_NUMBER, default=None, return_dtype=pl.Int32) for name in ("asked_key", "key"))
    up = (heard - wish) % 12
    same_mode = wish // 12 == heard // 12
    relative = pl.when(wish < 12).then(up == 9).otherwise(up == 3)
    return (
        pl.when(wish == heard)
        .then(pl.lit("exact"))
        .when(same_mode & up.is_in([5, 7]))
        .then(pl.lit("fifth"))
        .when(~same_mode & relative)
        .then(pl.lit("relative"))
        .otherwise(pl.lit("wrong"))
    )


def _duration_verdict() -> pl.Expr:
    wish, heard = pl.col("asked_duration_s"), pl.col("duration_s")
    allowed = pl.max_horizontal(wish * DURATION_TOLERANCE, pl.lit(DURATION_TOLERANCE_S))
    close = (heard - wish).abs() <= allowed
    return pl.when(close).then(pl.lit("exact")).when(heard > wish).then(pl.lit("longer")).otherwise(pl.lit("shorter"))


def _genre_verdict() -> pl.Expr:
    return (
        pl.when(pl.col("genres").list.contains(pl.col("genre")))
        .then(pl.lit("as-asked"))
        .when(pl.col("genres_related").list.contains(pl.col("genre")))
        .then(pl.lit("related"))
        .otherwise(pl.lit("other"))
    )


def _mood_verdict() -> pl.Expr:
    return pl.when(pl.col("moods").list.contains(pl.col("mood"))).then(pl.lit("as-asked")).otherwise(pl.lit("other"))


_VERDICTS = {
    "tempo": _tempo_verdict,
    "vocals": _vocals_verdict,
    "key": _key_verdict,
    "text_audio": lambda: pl.lit("cosine"),
    "duration": _duration_verdict,
    "genre": _genre_verdict,
    "mood": _mood_verdict,
}


def _worth(term: str) -> pl.Expr:
    """What a verdict adds to the total, in [0, 1]; null where there is none."""
    verdict = pl.col(f"{term}_verdict")
    if term == "text_audio":
        low, high = COSINE_RANGE
        return pl.when(verdict.is_not_null()).then(((pl.col("text_audio_cosine") - low) / (high - low)).clip(0.0, 1.0))
    if term == "duration":
        wish, heard = pl.col("asked_duration_s"), pl.col("duration_s")
        share = pl.min_horizontal(wish, heard) / pl.max_horizontal(wish, heard)
        return pl.when(verdict == "exact").then(1.0).when(verdict.is_not_null()).then(share)
    return pl.when(verdict.is_not_null()).then(verdict.replace_strict(WORTH, default=0.0, return_dtype=pl.Float64))
