"""How often may a key call? So often a window, counted in a file that all worker processes share.

The counters stand in one memory-mapped file under a `flock`: an increment costs microseconds, where a row in the ledger would
cost every request a round trip, and the kernel frees the lock of a killed worker. They hold for the workers of one machine;
behind a load balancer each machine counts for itself. The `limits` package reads `600/minute`; its strategies would ask a storage
three times a call, each under the lock. Belongs here: counting calls. Does not: how many exports run at once (the
export's own transaction holds that, `ledger/exports.py`).
"""

import fcntl
import hashlib
import math
import mmap
import os
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from limits import RateLimitItem, parse

from keeptake.errors import ConfigurationError

_SLOT = struct.Struct("=16sdQ")  # hash of the key, end of its window (Unix seconds), count
SLOTS = 1 << 15
PROBES = 64  # slots tried for a key; where all are taken by running windows the one that ends first gives way


class SharedCounters:
    """Fixed windows of calls, in a memory-mapped file.

    Parameters
    ----------
    path : Path
        The file; made where it is missing, shared by whoever opens it.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if os.fstat(self._file).st_size != SLOTS * _SLOT.size:
            os.ftruncate(self._file, SLOTS * _SLOT.size)
        self._slots = mmap.mmap(self._file, SLOTS * _SLOT.size)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _find(self, key: str, now: float) -> tuple[int, bytes, float, int]:
        """Offset, name, window's end and count of the slot that is the key's; the count is 0 where it has none yet."""
        name = hashlib.blake2b(key.encode(), digest_size=16).digest()
        home = int.from_bytes(name[:4], "little")
        free: tuple[float, int] | None = None
        for step in range(PROBES):
            offset = (home + step) % SLOTS * _SLOT.size
            there, ends, count = _SLOT.unpack_from(self._slots, offset)
            if there == name and ends > now:
                return offset, name, ends, count
            if free is None or (free[0] > now and ends < free[0]):
                free = (ends, offset)
            if not ends:
                break  # never used: nothing of this key lies behind it
        if free is None:
            raise AssertionError("no slot was tried")
        return free[1], name, 0.0, 0

    def count(self, key: str, window_s: int) -> tuple[int, float]:
        """Count a call; the first one opens the window. Calls in it so far, and its end in Unix seconds."""
        now = time.time()
        with self._locked():
            offset, name, ends, count = self._find(key, now)
            count += 1
            ends = ends or now + window_s
            _SLOT.pack_into(self._slots, offset, name, ends, count)
        return count, ends

    def close(self) -> None:
        """Let go of the file."""
        self._slots.close()
        os.close(self._file)


class Standing(NamedTuple):
    """Where a key stands after a call."""

    is_allowed: bool
    allowed: str
    retry_after_s: int
    headers: Mapping[str, str]


class CallLimits:
    """Limits of the call classes.

    Parameters
    ----------
    path : Path
        File of the counters.
    allowed : Mapping
        Class → limit such as `600/minute`.

    Raises
    ------
    ConfigurationError
        As `parsed_limits`.
    """

    def __init__(self, path: Path, allowed: Mapping[str, str]) -> None:
        self._counters = SharedCounters(path)
        self._items = parsed_limits(allowed)

    def count(self, kind: str, who: str) -> Standing:
        """Count one call of `who`."""
        item = self._items[kind]
        count, ends_s = self._counters.count(f"{kind}/{who}/{item}", item.get_expiry())
        reset_s = max(1, math.ceil(ends_s - time.time()))
        remaining = max(0, item.amount - count)
        headers = {"RateLimit-Limit": str(item.amount), "RateLimit-Remaining": str(remaining), "RateLimit-Reset": str(reset_s)}
        return Standing(count <= item.amount, str(item), reset_s, headers)

    def close(self) -> None:
        """Let go of the counters."""
        self._counters.close()


def parsed_limits(allowed: Mapping[str, str]) -> dict[str, RateLimitItem]:
    """Read the limits of the call classes.

    Raises
    ------
    ConfigurationError
        If one cannot be read, with its variable's name.
    """
    return {kind: _parsed(kind, text) for kind, text in allowed.items()}


def _parsed(kind: str, text: str) -> RateLimitItem:
    try:
        return parse(text)
    except ValueError as error:
        raise ConfigurationError(f"KEEPTAKE_RATE_LIMIT_{kind.upper()} reads like 600/minute, got {text!r}") from error


def limits_of(settings: Any) -> dict[str, str]:  # noqa: ANN401 -- Settings, or a test's stand-in with the three fields
    """Class → limit, from the settings."""
    return {kind: getattr(settings, f"rate_limit_{kind}") for kind in ("write", "read", "export")}
