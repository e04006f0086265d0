"""What must never be found in the ledger: queries whose answer should be empty. Belongs here: what checks ask."""

from collections.abc import Callable

import sqlalchemy as sa

from keeptake.ledger.connection import Ledger
from keeptake.ledger.living import LIVING

MOST = 1000
NEWEST = 50  # objects that are looked for in the store: each costs a request there


def _texts(ledger: Ledger, query: str, **values: object) -> list[str]:
    with ledger.begin() as connection:
        return [str(value) for value in connection.scalars(sa.text(query), values)]


def ids_that_differ_only_in_spelling(ledger: Ledger) -> list[str]:
    """Generation ids of which another one differs only in case."""
    return _texts(
        ledger, f"SELECT min(generation_id) FROM generations GROUP BY lower(generation_id) HAVING count(*) > 1 LIMIT {MOST}"
    )


def newest_audio(ledger: Ledger) -> list[str]:
    """Hashes of the audio that was stored last, at most `NEWEST`."""
    return _texts(ledger, "SELECT sha256 FROM audio ORDER BY stored_at DESC, sha256 LIMIT :most", most=NEWEST)


def audio_not_in_the_store(ledger: Ledger, has: Callable[[str], bool]) -> list[str]:
    """Hashes of the newest audio that the store, asked by `has`, does not hold."""
    return [sha256 for sha256 in newest_audio(ledger) if not has(sha256)]


def analyzed_without_features(ledger: Ledger) -> list[str]:
    """Generations that are called analyzed or more and have no features."""
    return _texts(
        ledger,
        f"SELECT generation_id FROM generations g WHERE status IN ('analyzed', 'embedded', 'scored') AND {LIVING}"
        f" AND NOT EXISTS (SELECT FROM features f WHERE f.audio_sha256 = g.audio_sha256) LIMIT {MOST}",
    )


def scores_that_disagree(ledger: Ledger) -> list[str]:
    """Generations whose score is missing where they are called scored, or is not the principal formula's total."""
    return _texts(
        ledger,
        "SELECT generation_id FROM generations g LEFT JOIN quality_scores q ON q.generation = g.id AND q.formula = 'seed_v1'"
        " WHERE ((g.status = 'scored' AND g.quality_score IS NULL)"
        " OR (g.scored_revision = q.feedback_revision AND g.quality_score IS DISTINCT FROM q.total))"
        f" AND {LIVING} LIMIT {MOST}",
    )


def problems(ledger: Ledger, has: Callable[[str], bool]) -> list[str]:
    """What keeps a dataset from being built of this ledger: the findings of the blocking checks, in words.

    Parameters
    ----------
    has : callable
        Whether the audio store holds the object of a hash.
    """
    found = {
        "stored audio files that the store does not have": audio_not_in_the_store(ledger, has),
        "analyzed takes without features": analyzed_without_features(ledger),
        "takes whose score is not the formula's": scores_that_disagree(ledger),
    }
    return [f"{len(ids)} {what}, the first {ids[0]}" for what, ids in found.items() if ids]
