"""Which takes sound like this one? Nearest neighbours by cosine in the current space, under filters that lose nothing.

An HNSW index proposes the nearest vectors first and the filter throws most of them away: plain, it answers with too few rows, or
none (`benchmarks/RESULTS.md`). So the filter goes first and is counted, no further than `EXACT_MOST`:

- few takes pass: they alone are compared, exactly;
- many pass, or there is no filter: the index gives the nearest takes of all, and if enough of them pass, these are the nearest
  that pass; if not, it gives more, and then the answer is computed exactly after all.

pgvector's iterative scan was rejected: it always finds enough, but takes what it finds far from the query for the nearest
(recall@10 0.78 where those that pass sound alike, and unlike the query).

Belongs here: search. Does not: the space (`embeddings.py`), who may ask.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa

from keeptake.embedding.models import DEFAULT_MODEL
from keeptake.embedding.scaler import apply_scaler
from keeptake.errors import UnavailableError
from keeptake.ledger.connection import Ledger
from keeptake.ledger.embeddings import StoredScaler, read_scaler, scaler_in_use

EXACT_MOST = 5_000  # takes that are compared one by one
MOST_NEIGHBOURS = 200
EXAMINED = (400, 1_000)  # candidates that the index collects: at first, and on a second try
CERTAIN = 4  # of the candidates the nearest fourth are the nearest of all; about those beyond the index errs


class EmbeddingPendingError(UnavailableError):
    """The take has no vector in the current space yet."""


@dataclass(frozen=True)
class Filters:
    """What neighbours must be; None: anything. Tempo in beats per minute, both ends included."""

    user_id: str | None = None
    provider: str | None = None
    genre: str | None = None
    key: str | None = None
    tempo_from_bpm: float | None = None
    tempo_to_bpm: float | None = None


class Neighbour(NamedTuple):
    """A take and how near it is: the cosine, in [-1, 1]."""

    generation_id: str
    similarity: float


_CONDITIONS = {
    "user_id": "g.user_id = :user_id",
    "provider": "g.provider = :provider",
    "genre": "f.genre = :genre",
    "key": "f.key = :key",
    "tempo_from_bpm": "f.tempo_bpm >= :tempo_from_bpm",
    "tempo_to_bpm": "f.tempo_bpm <= :tempo_to_bpm",
}


def similar(
    ledger: Ledger,
    target: str | np.ndarray,
    k: int = 10,
    filters: Filters | None = None,
    *,
    model: str = DEFAULT_MODEL,
) -> list[Neighbour]:
    """Find the takes that sound most like a take or a vector.

    Parameters
    ----------
    target : str or np.ndarray [shape=(raw dims,)]
        A generation's id, or a raw vector of the model.
    k : int
        How many, 1 to `MOST_NEIGHBOURS`.

    Returns
    -------
    list of Neighbour
        Nearest first, without the take itself; fewer than `k` only where no more pass the filter.

    Raises
    ------
    EmbeddingPendingError
        If there is no space yet, or the take is not in it.
    ValueError
        If `k` is out of range, or the vector of another length than the model's.
    """
    if not 1 <= k <= MOST_NEIGHBOURS:
        raise ValueError(f"k must be 1 to {MOST_NEIGHBOURS}, got {k}")
    conditions, values = _filter(filters or Filters(), target if isinstance(target, str) else None)
    with ledger.begin() as connection:
        scaler = scaler_in_use(connection, model)
        if scaler is None:
            raise EmbeddingPendingError(f"no takes are placed by {model} yet: run the embeddings, then repeat")
        vector = _vector(connection, target, scaler)
        # Postgres' default is for spinning disks: with it, a filter that a thousand takes pass reads every generation instead.
        connection.execute(sa.text("SET LOCAL random_page_cost = 1.1"))
        is_rare = bool(conditions) and _passing(connection, conditions, values) <= EXACT_MOST
        for examined in () if is_rare else EXAMINED:
            found = _nearest_indexed(connection, scaler, vector, k, conditions, values, examined=examined)
            if len(found) == k:
                return found
        return _nearest_exact(connection, scaler, vector, k, conditions, values)


def _vector(connection: sa.Connection, target: str | np.ndarray, scaler: StoredScaler) -> str:
    """The target's place in the space, as Postgres reads it."""
    if not isinstance(target, str):
        scaled = apply_scaler(read_scaler(connection, scaler), target[None])[0]
        return f"[{','.join(map(str, scaled.astype(np.float16).tolist()))}]"
    query = sa.text(
        "SELECT s.vector::text FROM generations g JOIN scaled_embeddings s ON s.audio_sha256 = g.audio_sha256"
        " WHERE g.generation_id = :generation_id AND s.scaler = :scaler"
    )
    vector: str | None = connection.execute(query, {"generation_id": target, "scaler": scaler.id}).scalar()
    if vector is None:
        raise EmbeddingPendingError(f"take {target!r} is not placed by {scaler.model} yet: repeat when it is embedded")
    return vector


def _filter(filters: Filters, itself: str | None) -> tuple[list[str], dict[str, Any]]:
    """Conditions on `g` and `f`, and their values; the take itself is left out later, since it filters nothing."""
    given = {field.name: getattr(filters, field.name) for field in fields(filters) if getattr(filters, field.name) is not None}
    return [_CONDITIONS[name] for name in given], {**given, "itself": itself}


def _source(conditions: list[str]) -> tuple[str, str]:
    """Takes that may be neighbours."""
    features = " JOIN features f ON f.audio_sha256 = g.audio_sha256" if any("f." in condition for condition in conditions) else ""
    rest = ["g.generation_id IS DISTINCT FROM :itself", "g.erased_at IS NULL", *conditions]
    return f"generations g{features}", " AND ".join(rest)


def _passing(connection: sa.Connection, conditions: list[str], values: Mapping[str, Any]) -> int:
    """About how many takes pass, counted no further than needed: the fewest that pass on one side of the join.

    The join itself would cost as much as the search. What hangs on the count is only which of two right ways is the faster.
    """
    counts = []
    for table in ("generations g", "features f"):
        own = [condition for condition in conditions if condition.startswith(table[-1] + ".")]
        if own:
            query = f"SELECT count(*) FROM (SELECT FROM {table} WHERE {' AND '.join(own)} LIMIT {EXACT_MOST + 1}) AS passing"
            counts.append(int(connection.execute(sa.text(query), values).scalar_one()))
    return min(counts)


def _nearest_exact(
    connection: sa.Connection, scaler: StoredScaler, vector: str, k: int, conditions: list[str], values: Mapping[str, Any]
) -> list[Neighbour]:
    """Compare every take that passes."""
    source, where = _source(conditions)
    query = f"""
        WITH passing AS MATERIALIZED (SELECT g.generation_id, g.audio_sha256 FROM {source} WHERE {where})
        SELECT p.generation_id, 1 - (s.vector <=> CAST(:vector AS halfvec)) AS similarity
        FROM passing p JOIN scaled_embeddings s ON s.audio_sha256 = p.audio_sha256 AND s.scaler = {scaler.id}
        ORDER BY similarity DESC, p.generation_id LIMIT {k}
    """
    return [Neighbour(*row) for row in connection.execute(sa.text(query), {**values, "vector": vector})]


def _nearest_indexed(
    connection: sa.Connection,
    scaler: StoredScaler,
    vector: str,
    k: int,
    conditions: list[str],
    values: Mapping[str, Any],
    *,
    examined: int,
) -> list[Neighbour]:
    """At most `k` of the nearest takes of all that pass."""
    connection.execute(sa.text(f"SET LOCAL hnsw.ef_search = {examined}"))
    source, where = _source(conditions)
    # The cast and the scaler stand here as they stand in the index, or Postgres would not see that it fits.
    query = f"""
        WITH nearest AS MATERIALIZED (
            SELECT audio_sha256, vector::halfvec({scaler.dims}) <=> CAST(:vector AS halfvec({scaler.dims})) AS distance
            FROM scaled_embeddings WHERE scaler = {scaler.id}
            ORDER BY vector::halfvec({scaler.dims}) <=> CAST(:vector AS halfvec({scaler.dims})) LIMIT {examined // CERTAIN}
        )
        SELECT g.generation_id, 1 - n.distance
        FROM nearest n JOIN {source.replace("generations g", "generations g ON g.audio_sha256 = n.audio_sha256", 1)}
        WHERE {where} ORDER BY n.distance, g.generation_id LIMIT {k}
    """
    return [Neighbour(*row) for row in connection.execute(sa.text(query), {**values, "vector": vector})]
