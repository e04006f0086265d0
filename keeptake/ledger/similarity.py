"""Which takes sound like this one? Nearest neighbours by cosine in the current space, under filters that lose nothing.

An HNSW index proposes the nearest vectors first and the filter throws most of them away: plain, it answers with too few rows, or
none (`benchmarks/RESULTS.md`). So what takes are filtered by lies beside their vectors:

- where no more than about `EXACT_MOST` pass, they alone are compared, exactly;
- where more pass, or there is no filter, the index gives the nearest takes of all, and if enough of them pass, these are the
  nearest that pass; if not, the answer is computed exactly after all.

What lies beside a vector is as old as the last renewal of the space. A neighbour is therefore checked against the ledger as it
is now, and where too few are left, the ledger itself is searched.

pgvector's iterative scan was rejected: it always finds enough, but takes what it finds far from the query for the nearest
(recall@10 0.78 where those that pass sound alike, and unlike the query).

Belongs here: search. Does not: the space (`embeddings.py`), who may ask.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa

from keeptake.embedding import DEFAULT_MODEL
from keeptake.embedding.scaler import apply_scaler
from keeptake.errors import ConfigurationError, KeeptakeError, UnavailableError
from keeptake.ledger.connection import Ledger
from keeptake.ledger.embeddings import StoredScaler, read_scaler, scaler_in_use
from keeptake.ledger.living import LIVING
from keeptake.ledger.unknown import no_such_take

EXACT_MOST = 25_000  # takes that are compared one by one: about 12 ms
MOST_NEIGHBOURS = 200
EXAMINED = (400, 1_000)  # candidates that the index collects: at first, and on a second try where nothing is filtered
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


# As the ledger has it now, of a take `g` and the features `f` of its audio; and as it was noted beside the vector.
_CONDITIONS = {
    "user_id": "g.user_id = :user_id",
    "provider": "g.provider = :provider",
    "genre": "f.genre = :genre",
    "key": "f.key = :key",
    "tempo_from_bpm": "f.tempo_bpm >= :tempo_from_bpm",
    "tempo_to_bpm": "f.tempo_bpm <= :tempo_to_bpm",
}
_NOTED = {
    "user_id": "user_ids @> ARRAY[:user_id]",
    "provider": "providers @> ARRAY[:provider]",
    "genre": "genre = :genre",
    "key": "key = :key",
    "tempo_from_bpm": "tempo_bpm >= :tempo_from_bpm",
    "tempo_to_bpm": "tempo_bpm <= :tempo_to_bpm",
}


def similar(
    ledger: Ledger,
    target: str | np.ndarray,
    k: int = 10,
    filters: Filters | None = None,
    *,
    model: str = DEFAULT_MODEL,
    version: str | None = None,
) -> list[Neighbour]:
    """Find the takes that sound most like a take or a vector.

    Parameters
    ----------
    target : str or np.ndarray [shape=(raw dims,)]
        A generation's id, or a raw vector of the model.
    k : int
        How many, 1 to `MOST_NEIGHBOURS`.
    version : str, optional
        Of the model that gave the raw vector.

    Returns
    -------
    list of Neighbour
        Nearest first, without the take itself; fewer than `k` only where no more pass the filter.

    Raises
    ------
    EmbeddingPendingError
        If there is no space yet, or the take is not in it.
    ConfigurationError
        If the ledger holds no such take; it names one that reads alike.
    ValueError
        If `k` is out of range, or the vector of another length than the model's.
    """
    if not 1 <= k <= MOST_NEIGHBOURS:
        raise ValueError(f"k must be 1 to {MOST_NEIGHBOURS}, got {k}")
    conditions, values = _filter(filters or Filters(), target if isinstance(target, str) else None)
    noted = _noted(filters or Filters())
    with ledger.begin() as connection:
        scaler = scaler_in_use(connection, model)
        if scaler is None:
            first = "" if model == DEFAULT_MODEL else "put it into KEEPTAKE_EMBEDDING_MODELS (docs/embedding-models.md), "
            raise EmbeddingPendingError(f"no takes are placed by {model} yet: {first}run the embeddings, then repeat")
        if version is not None and version != scaler.model_version:
            raise EmbeddingPendingError(f"this is placed by {_other_version(scaler, version)}")
        values["vector"] = _vector(connection, target, scaler)
        # Postgres' default is for spinning disks: with it, a filter that a thousand takes pass reads every vector instead.
        connection.execute(sa.text("SET LOCAL random_page_cost = 1.1"))
        is_few = bool(noted) and _passing(connection, scaler, noted, values) <= EXACT_MOST
        for examined in () if is_few else EXAMINED[: 1 if noted else None]:
            connection.execute(sa.text(f"SET LOCAL hnsw.ef_search = {examined}"))
            found = _checked(connection, _by_index(scaler, examined), k, conditions, values)
            if len(found) == k:
                return found
        found = _checked(connection, _by_notes(scaler, noted, 2 * k), k, conditions, values) if noted else []
        return found if len(found) == k else _nearest_exact(connection, scaler, k, conditions, values)


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
        raise _unplaced(connection, target, scaler)
    return vector


def _unplaced(connection: sa.Connection, target: str, scaler: StoredScaler) -> KeeptakeError:
    """Why a take has no place: it is unknown, or its audio is not there, or its turn or its version's has not come."""
    query = sa.text(
        "SELECT g.audio_status, e.version FROM generations g LEFT JOIN embeddings e ON e.audio_sha256 = g.audio_sha256"
        " AND e.model = :model AND e.version <> :version"
        " AND e.embedded_at > (SELECT fitted_at FROM embedding_scalers WHERE id = :scaler)"
        " WHERE g.generation_id = :generation_id ORDER BY e.embedded_at DESC LIMIT 1"
    )
    values = {"generation_id": target, "model": scaler.model, "version": scaler.model_version, "scaler": scaler.id}
    found = connection.execute(query, values).one_or_none()
    if found is None:
        return ConfigurationError(no_such_take(connection, target))
    status, newer = found
    if newer is not None:
        return EmbeddingPendingError(f"take {target!r} is placed by {_other_version(scaler, newer)}")
    when = "repeat when it is embedded" if status == "stored" else f"its audio is {status}, see `keeptake explain {target}`"
    return EmbeddingPendingError(f"take {target!r} is not placed by {scaler.model} yet: {when}")


def _other_version(scaler: StoredScaler, version: str) -> str:
    how = "`keeptake up` and `keeptake run` do" if scaler.model == DEFAULT_MODEL else "a backfill of `embeddings` does"
    return (
        f"version {version} of {scaler.model}, and search is still in the space of version {scaler.model_version}:"
        f" repeat when half of the other takes are placed anew, which {how}"
    )


def _given(filters: Filters) -> dict[str, Any]:
    return {field.name: getattr(filters, field.name) for field in fields(filters) if getattr(filters, field.name) is not None}


def _filter(filters: Filters, itself: str | None) -> tuple[list[str], dict[str, Any]]:
    """Conditions on `g` and `f`, and their values; the take itself is left out later, since it filters nothing."""
    given = _given(filters)
    return [_CONDITIONS[name] for name in given], {**given, "itself": itself}


def _noted(filters: Filters) -> list[str]:
    """The same conditions on what lies beside the vectors."""
    return [_NOTED[name] for name in _given(filters)]


def _source(conditions: list[str]) -> tuple[str, str]:
    """Takes that may be neighbours."""
    features = " JOIN features f ON f.audio_sha256 = g.audio_sha256" if any("f." in condition for condition in conditions) else ""
    rest = ["g.generation_id IS DISTINCT FROM :itself", LIVING, *conditions]
    return f"generations g{features}", " AND ".join(rest)


def _passing(connection: sa.Connection, scaler: StoredScaler, noted: list[str], values: Mapping[str, Any]) -> int:
    """How many vectors pass, as the planner guesses: it decides which of two right ways is likely the faster.

    Counting them takes two thirds as long as comparing them.
    """
    query = f"EXPLAIN (FORMAT JSON) SELECT FROM scaled_embeddings WHERE {' AND '.join([f'scaler = {scaler.id}', *noted])}"
    (explained,) = connection.execute(sa.text(query), values).scalar_one()
    return int(explained["Plan"]["Plan Rows"])


def _by_index(scaler: StoredScaler, examined: int) -> str:
    """Query for the nearest vectors of all, as many as the index is sure of."""
    # The cast and the scaler stand here as they stand in the index, or Postgres would not see that it fits.
    distance = f"vector::halfvec({scaler.dims}) <=> CAST(:vector AS halfvec({scaler.dims}))"
    where = f"WHERE scaler = {scaler.id} ORDER BY {distance} LIMIT {examined // CERTAIN}"
    return f"SELECT audio_sha256, {distance} AS distance FROM scaled_embeddings {where}"


def _by_notes(scaler: StoredScaler, noted: list[str], most: int) -> str:
    """Query for the nearest vectors of those that pass, each compared."""
    where = " AND ".join([f"scaler = {scaler.id}", *noted])
    return (
        "SELECT audio_sha256, vector <=> CAST(:vector AS halfvec) AS distance FROM scaled_embeddings"
        f" WHERE {where} ORDER BY distance LIMIT {most}"
    )


def _checked(
    connection: sa.Connection, proposed: str, k: int, conditions: list[str], values: Mapping[str, Any]
) -> list[Neighbour]:
    """At most `k` takes, nearest first, whose vectors are proposed and which pass as the ledger is now."""
    source, where = _source(conditions)
    query = f"""
        WITH nearest AS MATERIALIZED ({proposed})
        SELECT g.generation_id, 1 - n.distance
        FROM nearest n JOIN {source.replace("generations g", "generations g ON g.audio_sha256 = n.audio_sha256", 1)}
        WHERE {where} ORDER BY n.distance, g.generation_id LIMIT {k}
    """
    return [Neighbour(*row) for row in connection.execute(sa.text(query), values)]


def _nearest_exact(
    connection: sa.Connection, scaler: StoredScaler, k: int, conditions: list[str], values: Mapping[str, Any]
) -> list[Neighbour]:
    """Compare every take that passes as the ledger is now."""
    source, where = _source(conditions)
    query = f"""
        WITH passing AS MATERIALIZED (SELECT g.generation_id, g.audio_sha256 FROM {source} WHERE {where})
        SELECT p.generation_id, 1 - (s.vector <=> CAST(:vector AS halfvec)) AS similarity
        FROM passing p JOIN scaled_embeddings s ON s.audio_sha256 = p.audio_sha256 AND s.scaler = {scaler.id}
        ORDER BY similarity DESC, p.generation_id LIMIT {k}
    """
    return [Neighbour(*row) for row in connection.execute(sa.text(query), values)]
