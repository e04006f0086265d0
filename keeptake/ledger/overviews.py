"""What the data team looks at: counts, reasons and examples of a capture day, and of everything, as Polars frames.

Belongs here: read-only queries behind the tables and pictures of the Dagster UI. Does not: drawing them.
"""

from collections.abc import Iterable
from typing import NamedTuple

import polars as pl
import sqlalchemy as sa

from keeptake.curation.quality import FORMULAS, SEED_V1_WEIGHTS
from keeptake.embedding import DEFAULT_MODEL
from keeptake.ledger.connection import Ledger
from keeptake.ledger.embeddings import StoredScaler
from keeptake.ledger.living import LIVING

EXAMPLES = 10
SCORE_BINS = 20


def arrivals_of_day(ledger: Ledger, day: str) -> pl.DataFrame:
    """Newest generations of a day as captured."""
    return ledger.arrow(
        f"SELECT generation_id, provider, source, left(user_prompt, 80) AS prompt, created_at::text, status FROM generations"
        f" WHERE captured_on = {_date(day)} AND {LIVING} ORDER BY id DESC LIMIT {EXAMPLES}"
    )


def arrivals_by(ledger: Ledger, day: str, column: str) -> dict[str, int]:
    """Generations of a day by provider, source, status, audio_status or audio_reason."""
    if column not in ("provider", "source", "status", "audio_status", "audio_reason", "status_reason"):
        raise ValueError(f"generations are not counted by {column!r}")
    frame = ledger.arrow(
        f"SELECT {column} AS name, count(*) AS n FROM generations WHERE captured_on = {_date(day)} AND {column} IS NOT NULL"
        " GROUP BY 1 ORDER BY 2 DESC, 1"
    )
    return dict(zip(frame["name"].to_list(), frame["n"].to_list(), strict=True))


def refusals_of_day(ledger: Ledger, day: str) -> dict[str, int]:
    """Records refused on a day, by reason."""
    frame = ledger.arrow(
        f"SELECT reason, count(*) AS n FROM refusals WHERE (refused_at AT TIME ZONE 'UTC')::date = {_date(day)}"
        " GROUP BY 1 ORDER BY 2 DESC, 1"
    )
    return dict(zip(frame["reason"].to_list(), frame["n"].to_list(), strict=True))


def audio_of_day(ledger: Ledger, day: str) -> pl.DataFrame:
    """Newest audio outcomes of a day, failures first."""
    return ledger.arrow(
        "SELECT g.generation_id, g.audio_status, g.audio_reason, g.audio_attempts, a.format, a.duration_s, a.sample_rate_hz,"
        " array_to_string(a.flags, ' ') AS flags, left(g.audio_detail->>'detail', 120) AS detail"
        " FROM generations g LEFT JOIN audio a ON a.sha256 = g.audio_sha256"
        f" WHERE g.captured_on = {_date(day)} AND g.audio_status <> 'pending' AND {LIVING}"
        f" ORDER BY (g.audio_status = 'stored'), g.audio_last_attempt_at DESC NULLS LAST LIMIT {EXAMPLES}"
    )


def features_of_day(ledger: Ledger, day: str) -> pl.DataFrame:
    """Every take of a day with what was heard in it."""
    return ledger.arrow(
        "SELECT g.generation_id, f.duration_s, f.tempo_bpm, f.key, f.has_vocals, f.loudness_lufs, f.genre, f.rhythm_confidence,"
        " f.is_loop, g.audio_sha256 FROM generations g JOIN features f ON f.audio_sha256 = g.audio_sha256"
        f" WHERE g.captured_on = {_date(day)} AND {LIVING} ORDER BY g.id"
    )


def unheard_of_day(ledger: Ledger, day: str) -> dict[str, int]:
    """Takes of a day whose audio is stored and cannot be heard or placed, by reason."""
    frame = ledger.arrow(
        "SELECT a.analysis_reason AS reason, count(*) AS n FROM generations g JOIN audio a ON a.sha256 = g.audio_sha256"
        f" WHERE g.captured_on = {_date(day)} AND a.analysis_reason IS NOT NULL AND {LIVING} GROUP BY 1 ORDER BY 2 DESC, 1"
    )
    return dict(frame.iter_rows())


def fingerprints_of_day(ledger: Ledger, day: str) -> int:
    """Audio files of a day that have a fingerprint."""
    frame = ledger.arrow(
        "SELECT count(*) AS n FROM fingerprints"
        f" WHERE audio_sha256 IN (SELECT audio_sha256 FROM generations WHERE captured_on = {_date(day)} AND {LIVING})"
    )
    return int(frame.item())


def analysis_rate_of_day(ledger: Ledger, day: str) -> float | None:
    """Seconds of audio heard for a second of CPU, over the files of a day."""
    frame = ledger.arrow(
        "SELECT sum(a.duration_s)::float8 AS audio_s, sum(c.cpu_s)::float8 AS cpu_s"
        f" FROM (SELECT DISTINCT audio_sha256 FROM generations WHERE captured_on = {_date(day)}) d"
        " JOIN audio a ON a.sha256 = d.audio_sha256"
        # Of each file by its key: summed before joining, the analyses of all days would be read for one.
        " CROSS JOIN LATERAL (SELECT sum(cpu_s) AS cpu_s FROM analyses WHERE audio_sha256 = d.audio_sha256) c"
        " WHERE c.cpu_s IS NOT NULL"
    )
    audio_s, cpu_s = frame.row(0)
    return audio_s / cpu_s if cpu_s else None


def example_audio_of_day(ledger: Ledger, day: str, most: int = 3) -> list[tuple[str, str]]:
    """Generation id and audio hash of a few heard takes of a day, the newest first."""
    frame = ledger.arrow(
        "SELECT g.generation_id, g.audio_sha256 FROM generations g JOIN features f ON f.audio_sha256 = g.audio_sha256"
        f" WHERE g.captured_on = {_date(day)} AND {LIVING} ORDER BY g.id DESC LIMIT {most}"
    )
    return list(frame.iter_rows())


def embedded_of_day(ledger: Ledger, day: str) -> pl.DataFrame:
    """Vectors of a day, counted by model and version."""
    return ledger.arrow(
        "SELECT e.model, e.version, count(*) AS vectors, max(cardinality(e.vector)) AS dims FROM embeddings e"
        f" WHERE e.audio_sha256 IN (SELECT audio_sha256 FROM generations WHERE captured_on = {_date(day)})"
        " GROUP BY 1, 2 ORDER BY 1, 2"
    )


def neighbours_of_examples(ledger: Ledger, scaler: StoredScaler | None) -> pl.DataFrame:
    """The three nearest audio files of the three that came last, in one scaler's space: `example, neighbour, cosine`."""
    if scaler is None:
        return pl.DataFrame(schema={"example": pl.String, "neighbour": pl.String, "cosine": pl.Float64})
    # The cast and the scaler stand here as they stand in the index, or Postgres would not see that it fits.
    distance = f"v.vector::halfvec({scaler.dims}) <=> e.vector::halfvec({scaler.dims})"
    return ledger.arrow(
        "WITH examples AS (SELECT v.audio_sha256, v.vector FROM scaled_embeddings v JOIN audio a ON a.sha256 = v.audio_sha256"
        f" WHERE v.scaler = {scaler.id} ORDER BY a.stored_at DESC, a.sha256 LIMIT 3)"
        " SELECT e.audio_sha256 AS example, n.audio_sha256 AS neighbour, n.cosine"
        f" FROM examples e CROSS JOIN LATERAL (SELECT v.audio_sha256, 1 - ({distance}) AS cosine"
        f" FROM scaled_embeddings v WHERE v.scaler = {scaler.id} AND v.audio_sha256 <> e.audio_sha256"
        f" ORDER BY {distance} LIMIT 3) n ORDER BY e.audio_sha256, n.cosine DESC"
    )


class Take(NamedTuple):
    """What tells a person which take an audio file is."""

    audio_sha256: str
    generation_id: str
    takes: int  # generations of the same bytes; the id is that of the first
    prompt: str
    duration_s: float | None
    tempo_bpm: float | None
    key: str | None


def takes_by_audio(ledger: Ledger, files: Iterable[str]) -> dict[str, Take]:
    """The take of each audio file, erased ones passed over."""
    query = (
        "SELECT g.audio_sha256, (array_agg(g.generation_id ORDER BY g.id))[1], count(*),"
        " left((array_agg(g.user_prompt ORDER BY g.id))[1], 80), f.duration_s, f.tempo_bpm, f.key"
        " FROM generations g LEFT JOIN features f ON f.audio_sha256 = g.audio_sha256"
        f" WHERE g.audio_sha256 = ANY(:files) AND {LIVING} GROUP BY 1, f.audio_sha256"
    )
    with ledger.begin() as connection:
        rows = connection.execute(sa.text(query), {"files": sorted(set(files))}).all()
    return {row[0]: Take(*row) for row in rows}


class Distribution(NamedTuple):
    """How the totals of a formula are spread."""

    counts: list[int]  # in `SCORE_BINS` equal bins of [0, 1], lowest first; 1 belongs to the last
    mean: float | None


def score_distributions(ledger: Ledger) -> dict[str, Distribution]:
    """How the totals of each formula are spread over all takes, by its name."""
    query = sa.text(
        f"SELECT formula, least(width_bucket(total, 0, 1, {SCORE_BINS}), {SCORE_BINS}) - 1, count(*), sum(total)"
        " FROM quality_scores q JOIN generations g ON g.id = q.generation"
        f" WHERE formula = ANY(:formulas) AND {LIVING} GROUP BY 1, 2"
    )
    counts = {formula: [0] * SCORE_BINS for formula in FORMULAS}
    sums = dict.fromkeys(FORMULAS, 0.0)
    with ledger.begin() as connection:
        for formula, at, takes, total in connection.execute(query, {"formulas": list(FORMULAS)}):
            counts[formula][at] = takes
            sums[formula] += total
    return {name: Distribution(found, sums[name] / sum(found) if any(found) else None) for name, found in counts.items()}


def scores_by_provider_and_week(ledger: Ledger) -> pl.DataFrame:
    """Takes, mean score and its lowest and highest tenth, by provider and week of capture."""
    return ledger.arrow(
        "SELECT provider, to_char(captured_on, 'IYYY-\"W\"IW') AS week, count(*) AS takes,"
        " round(avg(quality_score)::numeric, 3)::float8 AS mean,"
        " percentile_cont(0.1) WITHIN GROUP (ORDER BY quality_score) AS lowest_tenth,"
        " percentile_cont(0.9) WITHIN GROUP (ORDER BY quality_score) AS highest_tenth"
        f" FROM generations g WHERE quality_score IS NOT NULL AND {LIVING} GROUP BY 1, 2 ORDER BY 2 DESC, 1"
    )


def best_and_worst(ledger: Ledger) -> pl.DataFrame:
    """The five best and the five worst scored takes, with what each term adds; `feedback` is what all of it adds together."""
    terms = ", ".join(f"(q.terms->>'{term}')::float8 AS {term}" for term in SEED_V1_WEIGHTS)
    feedback = " + ".join(f"(q.terms->>'{term}')::float8" for term in ("liked", "used", "rating"))
    query = (
        f"(SELECT g.generation_id, q.total, g.liked, g.rating, g.used, {terms}, {feedback} AS feedback FROM quality_scores q"
        f" JOIN generations g ON g.id = q.generation WHERE q.formula = 'seed_v1' AND {LIVING}"
        " ORDER BY q.total {order}, g.id LIMIT 5)"
    )
    return ledger.arrow(f"{query.format(order='DESC')} UNION ALL {query.format(order='ASC')}")


_SHOWN = (
    " FROM generations g JOIN features f ON f.audio_sha256 = g.audio_sha256"
    " LEFT JOIN quality_scores q ON q.generation = g.id AND q.formula = 'v2'"
    " LEFT JOIN LATERAL (SELECT version, vector, embedded_at FROM embeddings WHERE audio_sha256 = f.audio_sha256"
    f" AND model = '{DEFAULT_MODEL}' ORDER BY embedded_at DESC LIMIT 1) e ON true WHERE {LIVING}"
)


def snapshot_of_day(ledger: Ledger, day: str) -> pl.DataFrame:
    """Features, scores and the embedding of a day's takes, without anything personal: no user, prompt or free text."""
    return ledger.arrow(
        "SELECT g.generation_id, g.provider, g.model_used, g.captured_on, g.quality_score, q.total AS quality_v2, f.*,"
        f" e.version AS vector_version, e.vector{_SHOWN} AND g.captured_on = {_date(day)} ORDER BY g.generation_id"
    )


def snapshot_states(ledger: Ledger, day: str | None = None) -> dict[str, str]:
    """What moves a day's snapshot, as a text a day: how many takes it shows, and the sums of when they were scored and placed.

    Sums, since of two passes the later one may be committed first: a maximum would not see the other.
    """
    asked = f" AND g.captured_on = {_date(day)}" if day else ""
    moved = " || ' ' || ".join(f"coalesce(sum(extract(epoch FROM {at})), 0)" for at in ("q.scored_at", "e.embedded_at"))
    states = ledger.arrow(f"SELECT g.captured_on::text AS day, count(*) || ' ' || {moved} AS state{_SHOWN}{asked} GROUP BY 1")
    return dict(states.iter_rows())


def _date(day: str) -> str:
    from datetime import date

    return f"DATE '{date.fromisoformat(day)}'"


def asked_and_heard(ledger: Ledger) -> pl.DataFrame:
    """Tempo and key as asked in the parameters beside those heard, of every take of which a tempo or a key was asked.

    With the verdict of its adherence on each, or the reason why there is none; null where it was not judged yet.
    """
    verdicts = ", ".join(
        f"coalesce(a.terms->'{term}'->>'verdict', a.terms->'{term}'->>'reason') AS {term}_verdict" for term in ("tempo", "key")
    )
    return ledger.arrow(
        "SELECT g.generation_id, g.generation_params->>'bpm' AS bpm_asked, f.tempo_bpm, g.generation_params->>'key' AS key_asked,"
        f" f.key, {verdicts} FROM generations g JOIN features f ON f.audio_sha256 = g.audio_sha256"
        " LEFT JOIN adherence a ON a.generation = g.id"
        f" WHERE g.generation_params ?| ARRAY['bpm', 'key'] AND {LIVING} ORDER BY g.id"
    )


def left_out(ledger: Ledger, policy: str) -> dict[str, int]:
    """What a policy last left out, by the first rule that failed; kept takes count as `kept`."""
    with ledger.begin() as connection:
        rows = connection.execute(
            sa.text(
                "SELECT coalesce(reason, 'kept'), count(*) FROM selections WHERE policy = :policy GROUP BY 1"
                " ORDER BY (coalesce(reason, 'kept') <> 'kept'), 2 DESC, 1"
            ),
            {"policy": policy},
        )
        return {str(row[0]): int(row[1]) for row in rows}
