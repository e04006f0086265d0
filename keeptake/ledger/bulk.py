"""Many rows into a table at once: COPY into a temporary table, then one upsert.

Belongs here: the one way in which bulk rows enter any table. Does not: what the rows mean.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import JSONB

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves its dialects' constructors untyped


def upsert(
    connection: sa.Connection,
    table: sa.Table,
    rows: Iterable[Mapping[str, Any]],
    *,
    conflict: Sequence[str],
    update: Sequence[str] | None = None,
    where: str | None = None,
) -> int:
    """Insert rows, or update the ones that are there.

    Parameters
    ----------
    rows : iterable of mappings
        All with the keys of the first; values of JSONB columns are Python objects or JSON text.
    conflict : sequence of str
        Columns of the unique constraint that tells rows apart; of several such rows in `rows` the last counts.
    update : sequence of str, optional
        Columns to overwrite; by default all that are given and not in `conflict`; empty: leave the old row as it is.
    where : str, optional
        SQL condition on `TABLE.column` and `excluded.column` under which an old row is overwritten.

    Returns
    -------
    int
        Rows inserted or overwritten.
    """
    iterator = iter(rows)
    first = next(iterator, None)
    if first is None:
        return 0
    with staged(connection, table, chain((first,), iterator)) as name:
        return connection.exec_driver_sql(_statement(table, name, list(first), conflict, update, where)).rowcount


@contextmanager
def staged(connection: sa.Connection, table: sa.Table, rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Copy rows into a temporary table that has the named columns of `table`, and `row_at`, their order from 1.

    Yields
    ------
    str
        Its name; it is gone after the block.
    """
    iterator = iter(rows)
    first = next(iterator)
    columns, staging = list(first), f"staged_{table.name}"
    driver = connection.connection.driver_connection
    if driver is None:
        raise RuntimeError("the connection is closed")
    with driver.cursor() as cursor:
        kinds = ", ".join(f'"{name}" {_type(table, name)}' for name in columns)
        cursor.execute(f"CREATE TEMP TABLE {staging} (row_at BIGINT GENERATED ALWAYS AS IDENTITY, {kinds}) ON COMMIT DROP")
        names = ", ".join(f'"{name}"' for name in columns)
        is_json = [isinstance(table.c[name].type, JSONB) for name in columns]
        with cursor.copy(f"COPY {staging} ({names}) FROM STDIN") as copy:
            for row in chain((first,), iterator):
                copy.write_row(
                    [_json(row[name]) if json_text else row[name] for name, json_text in zip(columns, is_json, strict=True)]
                )
        yield staging
        cursor.execute(f"DROP TABLE {staging}")


def _statement(
    table: sa.Table, staged: str, columns: Sequence[str], conflict: Sequence[str], update: Sequence[str] | None, where: str | None
) -> str:
    names = ", ".join(f'"{name}"' for name in columns)
    key = ", ".join(f'"{name}"' for name in conflict)
    changed = [name for name in columns if name not in conflict] if update is None else update
    action = "NOTHING"
    if changed:
        action = "UPDATE SET " + ", ".join(f'"{name}" = excluded."{name}"' for name in changed)
        action += f" WHERE {where}" if where else ""
    # DISTINCT ON keeps the last of several equal keys: an upsert may not touch one row twice.
    return (
        f"INSERT INTO {table.name} ({names}) SELECT {names} FROM "
        f"(SELECT DISTINCT ON ({key}) * FROM {staged} ORDER BY {key}, row_at DESC) AS newest ORDER BY row_at "
        f"ON CONFLICT ({key}) DO {action}"
    )


def _type(table: sa.Table, name: str) -> str:
    return table.c[name].type.compile(_DIALECT)


def _json(value: Any) -> str | None:  # noqa: ANN401 -- any JSON value
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
