"""What an operational error of Postgres says: that the server is away, that its disk is full, or that it gave one statement up.

psycopg and SQLAlchemy have one class for all of them, `OperationalError`; the SQLSTATE tells them apart. Belongs here: telling
them apart. Does not: catching them (whoever asks knows whom).
"""

import psycopg

from keeptake.errors import LedgerUnavailableError, UnavailableError

_DISK_FULL = "53100"
_AWAY = ("08", "57P")  # broken connections; shutting down, crashed, still starting


def is_away(state: str | None) -> bool:
    """Whether an error with this SQLSTATE means that the server is away; what libpq says itself has none.

    >>> is_away(None), is_away("57P01"), is_away("40P01")
    (True, True, False)
    """
    return state is None or state.startswith(_AWAY)


def unavailable(error: psycopg.Error, away: str) -> UnavailableError:
    """How an operational error is told.

    Parameters
    ----------
    away : str
        The sentence for a server that is away.

    Returns
    -------
    UnavailableError
        The narrower `LedgerUnavailableError` where nothing else could be asked of the ledger either.
    """
    if error.sqlstate == _DISK_FULL:
        return LedgerUnavailableError("the disk of the ledger is full: free space on it, then repeat")
    if is_away(error.sqlstate):
        return LedgerUnavailableError(away)
    said = error.diag.message_primary or type(error).__name__
    return UnavailableError(f"the ledger gave a statement up (SQLSTATE {error.sqlstate}: {said}): repeat")
