"""An existing table in a Postgres, such as the workstation's own Prisma `TrainingMetadata`.

Conventions: columns are read by the names that they have (camelCase, quoted), JSON may stand in text columns, times without a
zone are UTC. Rows come in the order of `updatedAt`; since a row that commits late carries an earlier time, each reading begins
`overlap_s` before the last one's end, and known rows are replayed silently.

Belongs here: asking that table. Does not: what its columns are called elsewhere (`mapping.py`), our own ledger.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy.exc import ArgumentError

from keeptake.errors import ConfigurationError, UnavailableError
from keeptake.json_values import JSON
from keeptake.ledger.connection import libpq_url
from keeptake.sources.config import TableConfig, from_environment
from keeptake.sources.mapping import renamed
from keeptake.sources.source import Batch, RawRecord

JSON_GROUPS = ("analysisMetadata", "audioEmbedding", "spectralFeatures", "userFeedback")  # the door reads generationParams itself
_CONNECT_TIMEOUT_S = 5


@dataclass(frozen=True)
class TableSource:
    """A table, as configured."""

    config: TableConfig

    @property
    def name(self) -> str:
        """Configured name, or host, database and table."""
        if self.config.name:
            return self.config.name
        parts = psycopg.conninfo.conninfo_to_dict(self._url())
        return f"postgresql://{parts.get('host', 'localhost')}/{parts.get('dbname', '')}#{self.config.table}"

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
        with self._connection() as connection:
            order = self._order(connection)
            after = self._begin(cursor) if self._updated in order else None
            while rows := self._rows(connection, order, after):
                after = rows[-1][:-1]
                newest = {"updated_at": after[0]} if self._updated in order else {"seen": self._summary(connection, order)}
                is_last = len(rows) < self.config.page_size
                yield Batch(
                    [RawRecord(None, self._record(row[-1])) for row in rows],
                    newest if self._updated in order or is_last else None,
                )
                if is_last:
                    return

    def has_news(self, cursor: JSON | None) -> bool:
        """Whether a row is newer than the cursor."""
        if not isinstance(cursor, dict):
            return True
        with self._connection() as connection:
            order = self._order(connection)
            summary = self._summary(connection, order)
        seen: JSON = cursor.get("updated_at" if self._updated in order else "seen")
        return bool(seen != summary)

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

    def _connection(self) -> psycopg.Connection[tuple[str, ...]]:
        try:
            connection: psycopg.Connection[tuple[str, ...]] = psycopg.connect(
                self._url(),
                connect_timeout=_CONNECT_TIMEOUT_S,
                autocommit=True,
                options="-c timezone=UTC -c default_transaction_read_only=on",
            )
        except psycopg.OperationalError as error:
            raise UnavailableError(
                f"the database of source {self.config.table!r} does not answer: start it, then repeat"
            ) from error
        return connection

    def _table(self) -> sql.Identifier:
        return sql.Identifier(self.config.table_schema, self.config.table)

    def _order(self, connection: psycopg.Connection[tuple[str, ...]]) -> Sequence[str]:
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

    def _rows(
        self, connection: psycopg.Connection[tuple[str, ...]], order: Sequence[str], after: Sequence[str] | None
    ) -> list[tuple[str, ...]]:
        # Qualified, for a bare name in ORDER BY would mean the text that is selected: 10 before 9.
        ordered = [sql.Identifier("t", column) for column in order]
        columns, keys = sql.SQL(", ").join(ordered), sql.SQL(", ").join(ordered[: len(after or ())])
        texts = sql.SQL(", ").join(sql.SQL("{}::text").format(column) for column in ordered)
        # A parameter of unknown type takes the column's own: a time, a number, a text.
        where = (
            sql.SQL("WHERE ({}) > ({})").format(keys, sql.SQL(", ").join([sql.Placeholder()] * len(after)))
            if after
            else sql.SQL("")
        )
        query = sql.SQL("SELECT {}, to_jsonb(t)::text FROM {} AS t {} ORDER BY {} LIMIT {}").format(
            texts, self._table(), where, columns, sql.Literal(self.config.page_size)
        )
        try:
            return connection.execute(query, after).fetchall()
        except psycopg.OperationalError as error:
            raise UnavailableError(
                f"the database of source {self.name} broke off: what was read is kept, repeat later"
            ) from error
        except psycopg.errors.InsufficientPrivilege as error:
            raise ConfigurationError(f"we may not read {self.config.table}: grant SELECT on it") from error

    def _summary(self, connection: psycopg.Connection[tuple[str, ...]], order: Sequence[str]) -> JSON:
        """Newest time of a change; without such a column the number of rows and the greatest identifier."""
        greatest = sql.SQL("max({})::text").format(sql.Identifier(order[0]))
        if self._updated not in order:
            greatest = sql.SQL("count(*)::text || ' ' || coalesce({}, '')").format(greatest)
        row = connection.execute(sql.SQL("SELECT {} FROM {}").format(greatest, self._table())).fetchone()
        return row[0] if row else None

    def _begin(self, cursor: JSON | None) -> tuple[str, ...] | None:
        updated_at = cursor.get("updated_at") if isinstance(cursor, dict) else None
        if not isinstance(updated_at, str):
            return None
        try:
            begin = datetime.fromisoformat(updated_at) - timedelta(seconds=self.config.overlap_s)
        except (ValueError, OverflowError):
            return None
        return (begin.isoformat(),)

    def _record(self, row: str) -> bytes:
        record = renamed(json.loads(row), self.config.fields, self.config.defaults)
        for group in JSON_GROUPS:
            if isinstance(text := record.get(group), str):
                try:
                    record[group] = json.loads(text) if text.strip() else None
                except ValueError:
                    continue  # the door says what is wrong with it
        return json.dumps(record).encode()
