"""Who may do what? Keys, scopes, and the count of calls against a key's limits.

Conventions: no key → 401, a key without the scope → 403, too many calls → 429. Belongs here: the guard before every route. Does
not: making and revoking keys (`ledger/keys.py`), counting (`limits.py`).
"""

import hmac
import time
from collections import OrderedDict
from typing import NamedTuple

from fastapi import Request

from keeptake.capture.limits import CallLimits
from keeptake.capture.problems import Problem
from keeptake.ledger.keys import FIND_KEY, NOTE_USE, SCOPES, hash_secret, known_scopes, split_key
from keeptake.ledger.serving import ServingPool

REMEMBER_S = 3.0  # a revoked key is refused this long after, at the latest; without it each call would cost a query more
REMEMBERED = 4096
NOTE_USE_S = 60.0


class Principal(NamedTuple):
    """Who calls."""

    name: str
    scopes: frozenset[str]


class _Known(NamedTuple):
    secret_sha256: bytes
    scopes: frozenset[str]
    is_revoked: bool
    expires_epoch_s: float | None
    asked_s: float


ANYONE = Principal("anyone", frozenset(SCOPES))
_NOBODY = _Known(b"\0" * 32, frozenset(), True, None, 0.0)


class Keys:
    """The keys that this process has seen lately.

    Parameters
    ----------
    pool : ServingPool
        Where keys are looked up.
    is_open : bool
        No access control at all; the caller has made sure that only this machine can call.
    """

    def __init__(self, pool: ServingPool, *, is_open: bool) -> None:
        self._pool = pool
        self._is_open = is_open
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._used: set[str] = set()

    async def principal(self, request: Request) -> Principal:
        """Tell who calls.

        Raises
        ------
        Problem
            401 without a valid key.
        """
        if self._is_open:
            return ANYONE
        parts = split_key(_presented(request))
        if parts is None:
            raise _unauthorized("a key is required, as Authorization: Bearer kt_… or X-API-Key")
        name, secret = parts
        known = await self._look_up(name)
        is_right = hmac.compare_digest(hash_secret(secret), known.secret_sha256)
        has_ended = known.expires_epoch_s is not None and known.expires_epoch_s <= time.time()
        if not is_right or known.is_revoked or has_ended:
            raise _unauthorized("the key is unknown, revoked or expired")
        self._used.add(name)
        return Principal(name, known.scopes)

    async def _look_up(self, name: str) -> _Known:
        now = time.monotonic()
        known = self._known.get(name)
        if known is None or now - known.asked_s > REMEMBER_S:
            rows = await self._pool.rows(FIND_KEY, (name,))
            known = _NOBODY._replace(asked_s=now)
            if rows:
                secret_sha256, scopes, is_revoked, expires_epoch_s = rows[0]
                known = _Known(bytes(secret_sha256), known_scopes(scopes), is_revoked, expires_epoch_s, now)
            self._known[name] = known
            self._known.move_to_end(name)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return known

    async def note_use(self) -> None:
        """Record the last use of the keys seen since the last time."""
        used, self._used = self._used, set()
        if used:
            await self._pool.rows(NOTE_USE + " RETURNING id", (sorted(used),))


class Guard:
    """Dependency of a route: lets pass who holds the scope and keeps within the limits of the call's class.

    Parameters
    ----------
    scope : str
        One of `ledger.keys.SCOPES`.
    kind : str
        Class of the limit: write, read or export.
    """

    def __init__(self, scope: str, kind: str) -> None:
        if scope not in SCOPES:
            raise ValueError(f"unknown scope {scope!r}")
        self.scope = scope
        self.kind = kind

    async def __call__(self, request: Request) -> Principal:
        """Tell who calls, or refuse.

        Raises
        ------
        Problem
            401, 403 or 429.
        """
        keys: Keys = request.app.state.keys
        limits: CallLimits = request.app.state.limits
        principal = await keys.principal(request)
        if self.scope not in principal.scopes:
            raise Problem(403, "scope-missing", f"the key does not carry the scope {self.scope}")
        standing = limits.count(self.kind, principal.name)
        request.state.rate_headers = standing.headers
        if not standing.is_allowed:
            raise Problem(
                429,
                "too-many-calls",
                f"more calls than {standing.allowed}: repeat after Retry-After seconds",
                headers={"Retry-After": str(standing.retry_after_s)},
            )
        return principal


def _presented(request: Request) -> str:
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    return request.headers.get("x-api-key", "")


def _unauthorized(detail: str) -> Problem:
    return Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": 'Bearer realm="keeptake"'})
