"""The space that similarity is measured in: scalers, the vectors scaled by them, and one HNSW index a scaler.

A scaler belongs to a model and its version and has a version of its own. One of them is current: its vectors are what search
reads. It is renewed when the corpus has grown `GROWTH` times since it was fitted, never silently: `renew_space` says so. A
renewal is built aside and becomes current in one statement, so search goes on meanwhile; killed half-way, its remains are
cleared by the next one.

Belongs here: SQL of `embedding_scalers` and `scaled_embeddings`. Does not: raw vectors (`vectors.py`), search (`similarity.py`),
the arithmetic (`embedding/scaler.py`).
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import polars as pl
import sqlalchemy as sa

from keeptake.embedding.scaler import FEWEST_VECTORS, Scaler, apply_scaler, fit_scaler
from keeptake.ledger.bulk import upsert
from keeptake.ledger.connection import Ledger
from keeptake.ledger.living import LIVING
from keeptake.ledger.tables import embedding_scalers, scaled_embeddings

GROWTH = 4  # fitted on 100 vectors, renewed at 400: by then most of the corpus is new
MOST_FITTED = 20_000  # vectors that a scaler is fitted on; their order by hash is a random one
CAUGHT_UP = 0.5  # a new version of a model takes over when it has placed this share of what the old one has
CHUNK = 2_000
CLAIM_WAIT_S = 60.0
INDEX_MEMORY = "512MB"  # the graph of 100,000 vectors fits; without it the build falls back to the disk

# What search filters by, as it stands now, of the audio of a row `e`; kept beside each scaled vector.
_FILTERED_BY = "genre, key, tempo_bpm, user_ids, providers"
_NOW = f"""
    LEFT JOIN features f ON f.audio_sha256 = e.audio_sha256
    CROSS JOIN LATERAL (
        SELECT array_agg(DISTINCT user_id) AS user_ids, array_agg(DISTINCT provider) AS providers
        FROM generations g WHERE g.audio_sha256 = e.audio_sha256 AND {LIVING}
    ) t
"""
_REFRESH = f"""
    UPDATE scaled_embeddings s SET ({_FILTERED_BY}) = ROW (n.genre, n.key, n.tempo_bpm, n.user_ids, n.providers)
    FROM (
        SELECT e.audio_sha256, f.genre, f.key, f.tempo_bpm, t.user_ids, t.providers FROM scaled_embeddings e {_NOW}
        WHERE e.scaler = :scaler
    ) n
    WHERE s.scaler = :scaler AND s.audio_sha256 = n.audio_sha256
      AND (s.genre, s.key, s.tempo_bpm, s.user_ids, s.providers)
          IS DISTINCT FROM (n.genre, n.key, n.tempo_bpm, n.user_ids, n.providers)
"""


class StoredScaler(NamedTuple):
    """A scaler in the ledger."""

    id: int
    model: str
    model_version: str
    version: int
    fitted_on: int
    dims: int


class SpaceReport(NamedTuple):
    """What `renew_space` did."""

    scaler: StoredScaler | None  # None: too few vectors for a space
    vectors: int  # in the space now
    added: int
    is_renewed: bool
    is_outdated: bool = False  # still the space of another version of the model, until this one has caught up


def current_scaler(ledger: Ledger, model: str) -> StoredScaler | None:
    """The scaler that search uses for a model: of its newest version that has one."""
    with ledger.begin() as connection:
        return scaler_in_use(connection, model)


def scaler_in_use(connection: sa.Connection, model: str) -> StoredScaler | None:
    """`current_scaler` within a transaction."""
    query = sa.text(
        "SELECT id, model, model_version, version, fitted_on, dims FROM embedding_scalers"
        " WHERE model = :model AND is_current ORDER BY fitted_at DESC LIMIT 1"
    )
    row = connection.execute(query, {"model": model}).one_or_none()
    return StoredScaler(*row) if row else None


def read_scaler(connection: sa.Connection, scaler: StoredScaler) -> Scaler:
    """The transform itself."""
    columns = embedding_scalers.c
    query = sa.select(columns.mean, columns.deviation, columns.projection).where(columns.id == scaler.id)
    mean, deviation, projection = connection.execute(query).one()
    matrix = None if projection is None else np.frombuffer(projection, np.float32).reshape(len(mean), scaler.dims)
    return Scaler(np.array(mean, np.float32), np.array(deviation, np.float32), matrix)


def renew_space(ledger: Ledger, model: str, model_version: str, *, growth: float = GROWTH) -> SpaceReport:
    """Scale what is new; fit and index anew where the corpus outgrew the scaler, or a new version of the model has caught up.

    What takes are filtered by is brought up to date as well.

    Parameters
    ----------
    growth : float
        Renew when there are this many times the vectors that the current scaler was fitted on.

    Raises
    ------
    BusyError
        If another process has been at it for `CLAIM_WAIT_S`.
    """
    with ledger.claim(f"similarity space of {model} {model_version}", wait_s=CLAIM_WAIT_S):
        _clear_remains(ledger, model, model_version)
        current = current_scaler(ledger, model)
        is_due = _is_due(ledger, model, model_version, current, growth)
        if is_due:
            current = _build(ledger, model, model_version)
        if current is None:
            return SpaceReport(None, 0, 0, False)
        added = _scale_new(ledger, current)
        _refresh_filters(ledger, current)
        vectors = _in_space(ledger, current)
    return SpaceReport(current, vectors, vectors if is_due else added, is_due, current.model_version != model_version)


def _is_due(ledger: Ledger, model: str, model_version: str, current: StoredScaler | None, growth: float) -> bool:
    """Whether a new scaler should be fitted."""
    with ledger.begin() as connection:
        query = sa.text("SELECT count(*) FROM embeddings WHERE model = :model AND version = :version")
        available = connection.execute(query, {"model": model, "version": model_version}).scalar_one()
    if available < FEWEST_VECTORS:
        return False
    if current is None:
        return True
    if current.model_version != model_version:
        return bool(available >= CAUGHT_UP * _in_space(ledger, current))
    return current.fitted_on < MOST_FITTED and available >= growth * current.fitted_on


def _in_space(ledger: Ledger, scaler: StoredScaler) -> int:
    """How many vectors search sees."""
    with ledger.begin() as connection:
        query = sa.text("SELECT count(*) FROM scaled_embeddings WHERE scaler = :scaler")
        count: int = connection.execute(query, {"scaler": scaler.id}).scalar_one()
    return count


def index_name(scaler: int) -> str:
    """Name of a scaler's HNSW index."""
    return f"hnsw_scaled_embeddings_{scaler}"


def _build(ledger: Ledger, model: str, model_version: str) -> StoredScaler:
    """Fit, scale and index aside, then make it the current one."""
    sample = next(_raw_vectors(ledger, model, model_version, chunk=MOST_FITTED))
    scaler = _insert(ledger, model, model_version, sample)
    _scale_new(ledger, scaler)
    _index(ledger, scaler)
    with ledger.begin() as connection:
        connection.execute(
            sa.text("UPDATE embedding_scalers SET is_current = (id = :id) WHERE model = :model AND (is_current OR id = :id)"),
            {"id": scaler.id, "model": model},
        )
    _clear_superseded(ledger, scaler)
    return scaler


def _insert(ledger: Ledger, model: str, model_version: str, sample: pl.DataFrame) -> StoredScaler:
    vectors = _matrix(sample)
    fitted = fit_scaler(vectors)
    values = {
        "model": model,
        "model_version": model_version,
        "fitted_on": len(vectors),
        "dims": fitted.dims,
        "mean": fitted.mean.tolist(),
        "deviation": fitted.deviation.tolist(),
        "projection": None if fitted.projection is None else fitted.projection.tobytes(),
    }
    columns = embedding_scalers.c
    last = (
        sa.select(sa.func.coalesce(sa.func.max(columns.version), 0) + 1)
        .where(columns.model == model, columns.model_version == model_version)
        .scalar_subquery()
    )
    with ledger.begin() as connection:
        insert = embedding_scalers.insert().values(version=last, **values).returning(columns.id, columns.version)
        scaler, version = connection.execute(insert).one()
    return StoredScaler(scaler, model, model_version, version, len(vectors), fitted.dims)


def _scale_new(ledger: Ledger, scaler: StoredScaler) -> int:
    """Scale every raw vector that this scaler has not scaled yet, chunk by chunk."""
    with ledger.begin() as connection:
        transform = read_scaler(connection, scaler)
    added = 0
    for chunk in _raw_vectors(ledger, scaler.model, scaler.model_version, chunk=CHUNK, not_in=scaler.id):
        # Rounded to half precision here: the text is half as long as that of float32, and equal to what is stored.
        scaled = apply_scaler(transform, _matrix(chunk)).astype(np.float16)
        rows = (
            {**filtered_by, "scaler": scaler.id, "vector": f"[{','.join(map(str, vector.tolist()))}]"}
            for filtered_by, vector in zip(chunk.drop("vector").iter_rows(named=True), scaled, strict=True)
        )
        with ledger.begin() as connection:
            added += upsert(connection, scaled_embeddings, rows, conflict=("audio_sha256", "scaler"))
    return added


def _refresh_filters(ledger: Ledger, scaler: StoredScaler) -> None:
    """Note beside the vectors what was heard anew, and takes that came with audio known before."""
    with ledger.begin() as connection:
        connection.execute(sa.text(_REFRESH), {"scaler": scaler.id})


def _raw_vectors(
    ledger: Ledger, model: str, model_version: str, *, chunk: int, not_in: int | None = None
) -> Iterator[pl.DataFrame]:
    """Columns `audio_sha256`, `vector` and those that search filters by, in order of the hash, which is a random one."""
    missing = (
        ""
        if not_in is None
        else (
            " AND NOT EXISTS (SELECT FROM scaled_embeddings s"
            f" WHERE s.audio_sha256 = e.audio_sha256 AND s.scaler = {int(not_in)})"
        )
    )
    last = ""
    while True:
        frame = ledger.arrow(
            f"SELECT e.audio_sha256, e.vector, {_FILTERED_BY} FROM embeddings e {_NOW}"
            f" WHERE e.model = {_quoted(model)} AND e.version = {_quoted(model_version)}"
            f" AND e.audio_sha256 > {_quoted(last)}{missing}"
            f" ORDER BY e.audio_sha256 LIMIT {int(chunk)}"
        )
        if frame.is_empty():
            return
        yield frame
        last = frame["audio_sha256"][-1]


def _matrix(frame: pl.DataFrame) -> np.ndarray:
    vectors = frame["vector"]
    return vectors.list.to_array(len(vectors[0])).to_numpy()


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _index(ledger: Ledger, scaler: StoredScaler) -> None:
    """Build the scaler's index beside running writes."""
    with ledger.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text(f"SET maintenance_work_mem = '{INDEX_MEMORY}'"))
        try:
            connection.execute(
                sa.text(
                    f"CREATE INDEX CONCURRENTLY {index_name(scaler.id)} ON scaled_embeddings"
                    f" USING hnsw ((vector::halfvec({scaler.dims})) halfvec_cosine_ops) WHERE scaler = {scaler.id}"
                )
            )
            # Until autovacuum comes by, the planner would think that the table is all but empty, and sort it.
            connection.execute(sa.text("ANALYZE scaled_embeddings"))
        finally:
            connection.execute(sa.text("RESET maintenance_work_mem"))


def _clear_remains(ledger: Ledger, model: str, model_version: str) -> None:
    """Delete what a killed renewal left: scalers that never became current, newer than the one that is."""
    with ledger.begin() as connection:
        query = sa.text(
            "SELECT id FROM embedding_scalers s WHERE model = :model AND model_version = :version AND NOT is_current"
            " AND NOT EXISTS (SELECT FROM embedding_scalers c WHERE c.model = s.model AND c.is_current AND c.id > s.id)"
        )
        remains = connection.execute(query, {"model": model, "version": model_version}).scalars().all()
    for scaler in remains:
        _drop_index(ledger, scaler)
        with ledger.begin() as connection:
            connection.execute(embedding_scalers.delete().where(embedding_scalers.c.id == scaler))


def _clear_superseded(ledger: Ledger, scaler: StoredScaler) -> None:
    """Delete the vectors and indexes of older scalers of the model; the scalers stay, for lineage."""
    with ledger.begin() as connection:
        query = sa.text("SELECT id FROM embedding_scalers WHERE model = :model AND id < :id")
        superseded = connection.execute(query, {"model": scaler.model, "id": scaler.id}).scalars().all()
    for old in superseded:
        _drop_index(ledger, old)
        with ledger.begin() as connection:
            connection.execute(scaled_embeddings.delete().where(scaled_embeddings.c.scaler == old))


def _drop_index(ledger: Ledger, scaler: int) -> None:
    with ledger.begin() as connection:
        connection.execute(sa.text(f"DROP INDEX IF EXISTS {index_name(scaler)}"))
