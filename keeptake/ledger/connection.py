"""Ways into the ledger: a SQLAlchemy engine, an ADBC connection for Arrow, the migrations, a day's claim.

A plain `Ledger` object holds the address and one engine; each process makes its own. Belongs here: connecting and life-cycle.
Does not: the embedded server (`server.py`), queries (a file a topic).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from time import monotonic, sleep
from typing import Any

import polars as pl
import psycopg
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url

from keeptake.errors import BusyError, ConfigurationError, LedgerUnavailableError
from keeptake.ledger.outages import unavailable

CONNECT_TIMEOUT_S = 5
CLAIM_NAMESPACE = 0x4B54  # "KT": our half of Postgres' two-part advisory lock keys


def driver_url(url: str, driver: str) -> URL:
    """The same database through a named SQLAlchemy driver (a bare `postgresql://` means another one in every release).

    Raises
    ------
    ConfigurationError
        If it is no address of a Postgres.
    """
    try:
        address = make_url(url)
    except sa.exc.ArgumentError:
        address = None
    if address is None or not address.drivername.startswith("postgres"):
        raise ConfigurationError("KEEPTAKE_DATABASE_URL: expected postgresql://user:password@host:5432/name")
    return address.set(drivername=f"postgresql+{driver}")


def libpq_url(url: str) -> str:
    """The address as libpq, psql and ADBC read it."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


class Ledger:
    """The ledger at one address.

    Parameters
    ----------
    url : str
        `postgresql://…`, any driver suffix.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    @cached_property
    def engine(self) -> sa.Engine:
        """Engine over psycopg 3; every session runs in UTC."""
        engine = sa.create_engine(
            driver_url(self.url, "psycopg"),
            pool_size=4,
            max_overflow=8,
            pool_pre_ping=True,
            connect_args={"connect_timeout": CONNECT_TIMEOUT_S, "options": "-c timezone=UTC -c client_min_messages=warning"},
        )

        @event.listens_for(engine, "handle_error")
        def _name_outage(context: Any) -> None:  # noqa: ANN401 -- SQLAlchemy's own type is an internal protocol
            error = context.original_exception
            if isinstance(error, psycopg.OperationalError):
                raise unavailable(error, self._outage()) from error
            if context.is_disconnect:
                raise LedgerUnavailableError(self._outage()) from error

        return engine

    def _outage(self) -> str:
        where = make_url(self.url).render_as_string(hide_password=True)
        return f"the ledger at {where} does not answer: start it, or correct KEEPTAKE_DATABASE_URL, and repeat"

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """One transaction: committed at the end, rolled back on an exception."""
        with self.engine.begin() as connection:
            yield connection

    def arrow(self, query: str) -> pl.DataFrame:
        """Run a query through ADBC into Polars, column by column, without Python objects a row.

        Cast what Arrow does not know: jsonb `::text`, halfvec `::real[]`, numeric `::float8`; never an interval.
        """
        from adbc_driver_postgresql import dbapi

        try:
            connection = dbapi.connect(libpq_url(self.url))
        except Exception as failure:
            raise LedgerUnavailableError(self._outage()) from failure
        with connection, connection.cursor() as cursor:
            cursor.execute("SET timezone = 'UTC'")
            cursor.execute(query)
            return pl.DataFrame(cursor.fetch_arrow())

    @contextmanager
    def claim(self, what: str, *, wait_s: float = 0.0) -> Iterator[None]:
        """Hold a name for ourselves until the end of the block, or of the process however it dies.

        A session-level advisory lock: unlike a slot in a table it cannot outlive a killed holder.

        Raises
        ------
        BusyError
            If another session still holds it after `wait_s` seconds.
        """
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            lock: Mapping[str, Any] = {"space": CLAIM_NAMESPACE, "what": what}
            if not _locked(connection, lock, wait_s):
                raise BusyError(f"another run is at work on {what}: wait until it ends, then repeat")
            try:
                yield
            finally:
                connection.execute(sa.text("SELECT pg_advisory_unlock(:space, hashtext(:what))"), lock)

    def is_claimed(self, what: str) -> bool:
        """Whether a session holds a name: a claim of our own counts as well."""
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            lock: Mapping[str, Any] = {"space": CLAIM_NAMESPACE, "what": what}
            if not _locked(connection, lock, wait_s=0.0):
                return True
            connection.execute(sa.text("SELECT pg_advisory_unlock(:space, hashtext(:what))"), lock)
        return False

    def dispose(self) -> None:
        """Close the pooled connections."""
        if "engine" in self.__dict__:
            self.engine.dispose()


def _locked(connection: sa.Connection, lock: Mapping[str, Any], wait_s: float) -> bool:
    end = monotonic() + wait_s
    while not connection.scalar(sa.text("SELECT pg_try_advisory_lock(:space, hashtext(:what))"), lock):
        if monotonic() >= end:
            return False
        sleep(0.5)  # a lock_timeout would end the wait as an error that looks like an outage
    return True
