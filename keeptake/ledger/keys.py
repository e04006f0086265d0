"""Keys of the API: made once, kept as hashes, revocable.

A key reads `kt_ID_SECRET`: the id finds the row, the secret is 256 random bits, so that one SHA-256 is enough (a slow password
hash costs a second of CPU under load and guards nothing here). Belongs here: rows of `api_keys`. Does not: what a scope allows
(`capture/access.py`).
"""

import hashlib
import re
import secrets
from collections.abc import Collection, Iterable
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from keeptake.errors import ConfigurationError
from keeptake.ledger.connection import Ledger
from keeptake.ledger.tables import api_keys

SCOPES = (
    "metadata:write",
    "metadata:read",
    "feedback:write",
    "export:read",
    "stats:read",
    "metrics:read",
    "ml:read",
)

_KEY = re.compile(r"kt_([0-9a-f]{16})_([0-9a-f]{64})")

FIND_KEY = """
    SELECT secret_sha256, scopes, revoked_at IS NOT NULL, extract(epoch FROM expires_at)::float8 FROM api_keys WHERE id = %s
"""
NOTE_USE = "UPDATE api_keys SET last_used_at = now() WHERE id = ANY(%s)"


class Key(NamedTuple):
    """A key as it is listed: never its secret."""

    id: str
    scopes: list[str]
    note: str | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


def create_key(ledger: Ledger, scopes: Collection[str], expires_days: float | None = None, note: str | None = None) -> str:
    """Make a key and return it; it cannot be shown again.

    Raises
    ------
    ConfigurationError
        If there is no scope, an unknown one, or an end that is not ahead.
    """
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise ConfigurationError(f"a key needs scopes of {', '.join(SCOPES)}; got {', '.join(unknown) or 'none'}")
    if expires_days is not None and not 0 < expires_days <= 36_500:
        raise ConfigurationError(f"a key expires after more than 0 and at most 36500 days, got {expires_days}")
    name, secret = secrets.token_hex(8), secrets.token_hex(32)
    ends = None if expires_days is None else sa.text("now() + make_interval(secs => :s)").bindparams(s=expires_days * 86_400.0)
    with ledger.begin() as connection:
        connection.execute(
            sa.insert(api_keys).values(
                id=name, secret_sha256=hash_secret(secret), scopes=sorted(set(scopes)), expires_at=ends, note=note
            )
        )
    return f"kt_{name}_{secret}"


def list_keys(ledger: Ledger) -> list[Key]:
    """Every key, oldest first."""
    columns = [api_keys.c[name] for name in Key._fields]
    with ledger.begin() as connection:
        return [Key(*row) for row in connection.execute(sa.select(*columns).order_by(api_keys.c.created_at, api_keys.c.id))]


def revoke_key(ledger: Ledger, key_id: str) -> bool:
    """Revoke a key by its id; False where there is none. A running service follows within seconds."""
    statement = (
        sa.update(api_keys)
        .where(api_keys.c.id == key_id)
        .values(revoked_at=sa.func.coalesce(api_keys.c.revoked_at, sa.func.now()))
        .returning(api_keys.c.id)
    )
    with ledger.begin() as connection:
        return connection.execute(statement).first() is not None


def split_key(key: str) -> tuple[str, str] | None:
    """Id and secret of a key; None for anything that cannot be one.

    >>> split_key("kt_1_2") is None
    True
    """
    found = _KEY.fullmatch(key)
    return (found.group(1), found.group(2)) if found else None


def hash_secret(secret: str) -> bytes:
    """Hash that is kept in place of a secret."""
    return hashlib.sha256(secret.encode()).digest()


def known_scopes(scopes: Iterable[str]) -> frozenset[str]:
    """Scopes of a row that still exist."""
    return frozenset(scopes).intersection(SCOPES)
