"""An existing table in a Postgres, such as the workstation's own Prisma `TrainingMetadata`.

Conventions: columns are read by the names that they have (camelCase, quoted), JSON may stand in text columns, times without a
zone are UTC. Rows come in the order of `updatedAt`; since a row that commits late carries an earlier time, each reading begins
`overlap_s` before the last one's end, and known rows are replayed silently.

Belongs here: asking that table. Does not: what its columns are called elsewhere (`mapping.py`), our own ledger.
"""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy.exc import ArgumentError

from keeptake.errors import ConfigurationError, UnavailableError
from keeptake.json_values import JSON
from keeptake.ledger.connection import libpq_url
from keeptake.sources.config import TableConfig, from_environment
from keeptake.sources.mapping import renamed
from keeptake.sources.source import NEWS_WITHIN_S, Batch, RawRecord

JSON_GROUPS = ("analysisMetadata", "audioEmbedding", "spectralFeatures", "userFeedback")  # the door reads generationParams itself
_CONNECT_TIMEOUT_S = 5
_UNDATED = "undated"  # in a cursor: how many rows had no time of change
Row = tuple[Any, ...]  # texts of the columns that order, then the row as JSON


@dataclass(frozen=True)
class TableSource:
    """A table, as configured."""

    config: TableConfig

    @property
    def name(self) -> str:
        """Configured name, or host, database and table, with the port and schema that are not the usual ones."""
        if self.config.name:
            return self.config.name
        schema = "" if self.config.table_schema == "public" else f"{self.config.table_schema}."
        try:
            parts = psycopg.conninfo.conninfo_to_dict(self._url())
        except ConfigurationError:  # reading it says so; whoever asks for its name alone wants to tell of that
            return f"postgresql://?#{schema}{self.config.table}"
        port = "" if parts.get("port", "5432") in ("", "5432") else f":{parts['port']}"
        return f"postgresql://{parts.get('host', 'localhost')}{port}/{parts.get('dbname', '')}#{schema}{self.config.table}"

    @property
    def audio_root(self) -> Path | None:
        """None: a table has no folder of ours."""
        return None

    def batches(self, cursor: JSON | None) -> Iterator[Batch]:
        """Read the rows that changed since shortly before the cursor, oldest change first.

        Raises
        ------
        UnavailableError
            If the database is away; what was read before is committed.
        ConfigurationError
            If there is no such table, or we may not read it.
        """
        before = cursor if isinstance(cursor, dict) else {}
        with self._connection() as connection:
            order = self._order(connection)
            seen = self._summary(connection, order)  # before the rows: what changes while they are read is news
            since, after = self._begin(before.get("updated_at")), None
            while True:
                rows = self._rows(connection, order, since, after)
                after = rows[-1][:-1] if rows else after
                is_last = len(rows) < self.config.page_size
                yield Batch([RawRecord(None, self._record(row[-1])) for row in rows], self._reached(before, after, seen, is_last))
                if is_last:
                    return

    def has_news(self, cursor: JSON | None, *, within_s: float = NEWS_WITHIN_S) -> bool:
        """Whether rows changed after the cursor, or others than then have no time of change."""
        with self._connection(within_s) as connection:
            seen = self._summary(connection, self._order(connection))
        if not isinstance(cursor, dict):
            return True
        return any(cursor.get(name, 0 if name == _UNDATED else None) != value for name, value in seen.items())

    def _reached(self, before: dict[str, JSON], after: Row | None, seen: dict[str, JSON], is_last: bool) -> JSON:
        """The cursor after a page; None where it stays, since rows without times can only be read again from the top."""
        if "seen" in seen:
            return seen if is_last else None
        updated_at = (after[0] if after else None) or before.get("updated_at")
        return {"updated_at": updated_at, _UNDATED: seen[_UNDATED] if is_last else before.get(_UNDATED, 0)}

    @property
    def _updated(self) -> str:
        return self.config.fields.get("updatedAt", "updatedAt")

    def _url(self) -> str:
        try:
            return libpq_url(from_environment(self.config.url))
        except (ArgumentError, ValueError):
            raise ConfigurationError(
                "the table's address is none of a Postgres: expected postgresql://user:password@host/name"
            ) from None

    @contextmanager
    def _connection(self, within_s: float | None = None) -> Iterator[psycopg.Connection[Row]]:
        """A connection for the length of the block, whose errors are ours."""
        limit_ms = 0 if within_s is None else max(1, round(1000 * within_s))
        options = f"-c timezone=UTC -c default_transaction_read_only=on -c statement_timeout={limit_ms}"
        wait_s = _CONNECT_TIMEOUT_S if within_s is None else min(_CONNECT_TIMEOUT_S, math.ceil(within_s))
        try:
            with psycopg.connect(self._url(), connect_timeout=wait_s, autocommit=True, options=options) as connection:
                yield connection
        except psycopg.OperationalError as error:
            raise UnavailableError(
                f"the database of source {self.name} does not answer: what was read is kept; start it, then repeat"
            ) from error
        except psycopg.errors.InsufficientPrivilege as error:
            raise ConfigurationError(f"we may not read {self.config.table}: grant SELECT on it") from error
        except psycopg.Error as error:
            raise ConfigurationError(
                f"source {self.name} cannot be read: {error.diag.message_primary or type(error).__name__}; mend the table or view"
            ) from error

    def _table(self) -> sql.Identifier:
        return sql.Identifier(self.config.table_schema, self.config.table)

    def _order(self, connection: psycopg.Connection[Row]) -> Sequence[str]:
        """Columns that rows are read in the order of: (`updatedAt`, `id`), or `id` alone."""
        names = {
            name
            for (name,) in connection.execute(
                "SELECT column_name FROM information_schema.columns WHERE table_schema = %s AND table_name = %s",
                (self.config.table_schema, self.config.table),
            )
        }
        identifier = self.config.fields.get("id", "id")
        if identifier not in names:
            raise ConfigurationError(
                f"there is no table {self.config.table_schema}.{self.config.table} with a column {identifier!r} that we may read"
            )
        return (self._updated, identifier) if self._updated in names else (identifier,)

    def _rows(self, connection: psycopg.Connection[Row], order: Sequence[str], since: str | None, after: Row | None) -> list[Row]:
        """The next page: first the rows that have no time of change, which are read each time, then the others."""
        # Qualified, for a bare name in ORDER BY would mean the text that is selected: 10 before 9.
        columns = [sql.Identifier("t", column) for column in order]
        texts = sql.SQL(", ").join(sql.SQL("{}::text").format(column) for column in columns)
        conditions, values = list[sql.Composable]([sql.SQL("true")]), list[str]()
        # A parameter of unknown type takes the column's own: a time, a number, a text.
        if since is not None and (after is None or after[0] is None):
            conditions.append(sql.SQL("({0} IS NULL OR {0} > %s)").format(columns[0]))
            values.append(since)
        if after is not None and after[0] is None:
            conditions.append(sql.SQL("({} IS NOT NULL OR {} > %s)").format(*columns))
            values.append(after[1])
        elif after is not None:
            places = sql.SQL(", ").join([sql.Placeholder()] * len(after))
            conditions.append(sql.SQL("({}) > ({})").format(sql.SQL(", ").join(columns), places))
            values.extend(after)
        query = sql.SQL("SELECT {}, to_jsonb(t)::text FROM {} AS t WHERE {} ORDER BY {}, {} LIMIT {}").format(
            texts,
            self._table(),
            sql.SQL(" AND ").join(conditions),
            sql.SQL("{} NULLS FIRST").format(columns[0]),
            columns[-1],
            sql.Literal(self.config.page_size),
        )
        return connection.execute(query, values).fetchall()

    def _summary(self, connection: psycopg.Connection[Row], order: Sequence[str]) -> dict[str, JSON]:
        """Newest time of a change and how many rows have none; without such a column their number and the greatest identifier."""
        if self._updated in order:
            what = sql.SQL("max({0})::text, count(*) FILTER (WHERE {0} IS NULL)").format(sql.Identifier(self._updated))
            names: tuple[str, ...] = ("updated_at", _UNDATED)
        else:
            what = sql.SQL("count(*)::text || ' ' || coalesce(max({})::text, '')").format(sql.Identifier(order[0]))
            names = ("seen",)
        row = connection.execute(sql.SQL("SELECT {} FROM {}").format(what, self._table())).fetchone()
        return dict(zip(names, row or (), strict=True))

    def _begin(self, updated_at: JSON) -> str | None:
        """Where to begin, some time before the cursor; None is the top."""
        if not isinstance(updated_at, str):
            return None
        try:
            return (datetime.fromisoformat(updated_at) - timedelta(seconds=self.config.overlap_s)).isoformat()
        except (ValueError, OverflowError):
            return None

    def _record(self, row: str) -> bytes:
        record = renamed(json.loads(row), self.config.fields, self.config.defaults)
        for group in JSON_GROUPS:
            if isinstance(text := record.get(group), str):
                try:
                    record[group] = json.loads(text) if text.strip() else None
                except ValueError:
                    continue  # the door says what is wrong with it
        return json.dumps(record).encode()
