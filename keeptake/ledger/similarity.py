"""Which takes sound like this one? Nearest neighbours by cosine in the current space, under filters that lose nothing.

An HNSW index proposes the nearest vectors first and the filter throws most of them away: plain, it answers with too few rows, or
none (`benchmarks/results/embed.md`). So the filter goes first and is counted, up to `EXACT_MOST`:

- few takes pass: they alone are compared, exactly;
- many pass, or there is no filter: the index is read on and on ("iterative scan") until enough have passed; should it give up
  early, the answer is computed exactly after all.

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

EXACT_MOST = 2_000  # takes that are compared one by one in less time than the index needs to find ten of so few
MOST_NEIGHBOURS = 1_000
EXAMINED_FIRST = 100  # candidates that the index collects before the filter sees them


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
        if conditions and _passing(connection, conditions, values) <= EXACT_MOST:
            return _nearest_exact(connection, scaler, vector, k, conditions, values)
        found = _nearest_indexed(connection, scaler, vector, k, conditions, values)
        return found if len(found) == k else _nearest_exact(connection, scaler, vector, k, conditions, values)


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
    """How many takes pass, counted no further than needed."""
    source, where = _source(conditions)
    query = f"SELECT count(*) FROM (SELECT FROM {source} WHERE {where} LIMIT {EXACT_MOST + 1}) AS passing"
    count: int = connection.execute(sa.text(query), values).scalar_one()
    return count


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
    connection: sa.Connection, scaler: StoredScaler, vector: str, k: int, conditions: list[str], values: Mapping[str, Any]
) -> list[Neighbour]:
    """Read the index in order of nearness until `k` takes have passed."""
    connection.execute(
        sa.text("SELECT set_config('hnsw.iterative_scan', 'relaxed_order', true), set_config('hnsw.ef_search', :examined, true)"),
        {"examined": str(max(EXAMINED_FIRST, k))},
    )
    source, where = _source(conditions)
    # The cast and the scaler stand here as they stand in the index, or Postgres would not see that it fits.
    query = f"""
        WITH nearest AS MATERIALIZED (
            SELECT g.generation_id, s.vector::halfvec({scaler.dims}) <=> CAST(:vector AS halfvec({scaler.dims})) AS distance
            FROM scaled_embeddings s JOIN {source.replace("generations g", "generations g ON g.audio_sha256 = s.audio_sha256", 1)}
            WHERE s.scaler = {scaler.id} AND {where}
            ORDER BY s.vector::halfvec({scaler.dims}) <=> CAST(:vector AS halfvec({scaler.dims})) LIMIT {k}
        )
        SELECT generation_id, 1 - distance FROM nearest ORDER BY distance, generation_id
    """
    return [Neighbour(*row) for row in connection.execute(sa.text(query), {**values, "vector": vector})]
