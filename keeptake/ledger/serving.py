"""The ledger as a service asks it: an asynchronous pool, and transactions of threads, which all end in time.

A query that outlives its deadline has its socket shut down: cancelling the task instead would make psycopg ask the server to
cancel and wait for it, which a frozen server never answers. Connections are in autocommit mode: one statement is one transaction.
Belongs here: the pool, the deadlines and the way in which an outage shows. Does not: statements (a file a topic beside this one).
"""

import asyncio
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import RowFactory, dict_row, tuple_row
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout
from sqlalchemy.engine import make_url

from keeptake.errors import LedgerUnavailableError
from keeptake.ledger.connection import Ledger, driver_url, libpq_url
from keeptake.ledger.outages import is_away, unavailable

DEADLINE_S = 1.8  # an outage is to be answered within 2 s
LONGEST_QUEUE_S = 10.0
RECONNECT_S = 5.0  # psycopg's pool waits 1, 2, 4, 8 s … between attempts: given up after 5, the next caller starts anew
_CONNECT_TIMEOUT_S = 2
_OPTIONS = "-c timezone=UTC -c client_min_messages=warning -c synchronous_commit=on"

Connection = psycopg.AsyncConnection[tuple[Any, ...]]


def connect_arguments(url: str) -> dict[str, Any]:
    """Arguments of libpq for a ledger at `url`; options in the URL count above ours.

    `synchronous_commit=on` is ours to say: what we acknowledge is on disk even where the server's default is laxer.
    """
    address = make_url(url)
    arguments = conninfo_to_dict(libpq_url(address.difference_update_query(["options"]).render_as_string(hide_password=False)))
    arguments["options"] = f"{_OPTIONS} {address.query.get('options', '')}".strip()
    return {"connect_timeout": _CONNECT_TIMEOUT_S, **arguments}


class ServingPool:
    """Connections for many small questions at once.

    Parameters
    ----------
    url : str
        `postgresql://…`.
    most : int
        Connections of this process.
    deadline_s : float
        Seconds that a question may take unless its caller grants more.
    """

    def __init__(self, url: str, *, most: int = 12, deadline_s: float = DEADLINE_S) -> None:
        self._deadline_s = deadline_s
        self.arguments = connect_arguments(url)
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            kwargs={**self.arguments, "autocommit": True},
            min_size=1,
            max_size=most,
            timeout=deadline_s,
            reconnect_timeout=RECONNECT_S,
            open=False,
        )
        self._draining: asyncio.Task[None] | None = None
        self._answered_s = float("-inf")

    async def open(self) -> None:
        """Start connecting; returns at once, so that a service starts while its ledger is away."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        """Give the connections back."""
        await self._pool.close()

    async def rows(self, query: str, given: Sequence[Any] = (), *, deadline_s: float | None = None) -> list[tuple[Any, ...]]:
        """Run one statement as one transaction.

        Raises
        ------
        LedgerUnavailableError
            If the ledger is away or does not answer within `deadline_s`.
        UnavailableError
            If it gave the statement up: repeated, it may come through.
        """
        return await self._run(query, given, deadline_s, tuple_row)

    async def mappings(self, query: str, given: Sequence[Any] = (), *, deadline_s: float | None = None) -> list[dict[str, Any]]:
        """Run one statement as one transaction; rows by column name."""
        return await self._run(query, given, deadline_s, dict_row)

    async def _run(self, query: str, given: Sequence[Any], deadline_s: float | None, shape: RowFactory[Any]) -> list[Any]:
        loop = asyncio.get_running_loop()
        connection = await self._connection()
        watchdog = loop.call_later(self._deadline_s if deadline_s is None else deadline_s, break_off, connection)
        try:
            cursor = await connection.cursor(row_factory=shape).execute(query, given)
            rows = await cursor.fetchall()
            self._answered_s = loop.time()
            return rows
        except psycopg.OperationalError as outage:
            if is_away(outage.sqlstate):
                self._drop_idle()
            raise unavailable(outage, f"the ledger broke off: {type(outage).__name__}") from outage
        finally:
            watchdog.cancel()
            await self._pool.putconn(connection)

    async def _connection(self) -> Connection:
        """Wait for a connection: in a queue that moves for long, in one that stands as long as for an answer."""
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        while True:
            moved_s = max(self._answered_s, started_s)
            try:
                return await self._pool.getconn(timeout=moved_s + self._deadline_s - loop.time())
            except (PoolTimeout, PoolClosed) as outage:
                now_s = loop.time()
                is_moving = self._answered_s > moved_s and now_s - self._answered_s < self._deadline_s
                if not is_moving or now_s - started_s > LONGEST_QUEUE_S:
                    raise LedgerUnavailableError("no connection to the ledger in time") from outage

    def _drop_idle(self) -> None:
        """After one connection broke the idle ones are doubtful too: without this each would fail one more request."""
        if self._draining is None or self._draining.done():
            self._draining = asyncio.get_running_loop().create_task(self._pool.drain())


class BoundedLedger(Ledger):
    """The ledger as a service's threads ask it: each transaction on a connection of its own, which is broken off in time.

    An engine's pool asks the server whether a connection still lives, and a frozen server never answers that.

    Parameters
    ----------
    url : str
        `postgresql://…`.
    deadline_s : float
        Seconds from a transaction's first statement to its commit; connecting has `_CONNECT_TIMEOUT_S` of its own.
    """

    def __init__(self, url: str, *, deadline_s: float = DEADLINE_S) -> None:
        super().__init__(url)
        self._deadline_s = deadline_s
        self._arguments = connect_arguments(url)
        self._connected = threading.local()

    @cached_property
    def engine(self) -> sa.Engine:
        """Engine over the connection that `begin` has just made in the same thread."""
        return sa.create_engine(
            driver_url(self.url, "psycopg"), poolclass=sa.NullPool, creator=lambda: self._connected.connection
        )

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """One transaction, as of any ledger.

        Raises
        ------
        LedgerUnavailableError
            If the ledger is away or does not answer in time: whether it still commits is not known then.
        UnavailableError
            If it gave a statement up: repeated, it may come through.
        """
        try:
            with psycopg.connect(**self._arguments) as raw:
                watchdog = threading.Timer(self._deadline_s, break_off, (raw,))
                watchdog.daemon = True
                watchdog.start()
                try:
                    self._connected.connection = raw
                    with self.engine.begin() as connection:
                        yield connection
                finally:
                    watchdog.cancel()
        except (psycopg.OperationalError, sa.exc.OperationalError) as outage:
            error = outage if isinstance(outage, psycopg.Error) else outage.orig
            if not isinstance(error, psycopg.Error):
                raise
            raise unavailable(error, "the ledger broke a transaction off") from error


def break_off(connection: psycopg.AsyncConnection[Any] | psycopg.Connection[Any]) -> None:
    """Shut a connection's socket down, whoever waits on it."""
    if connection.closed:
        return
    with socket.socket(fileno=os.dup(connection.pgconn.socket)) as double:
        try:
            double.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # the other side was faster
