"""Statistics, cached: answered at once from memory, never older than a minute.

Belongs here: the cache. Does not: the counting (`ledger/statistics.py`).
"""

import asyncio
import hashlib
import json
import time
from datetime import UTC, datetime
from typing import Any, NamedTuple

from keeptake.errors import LedgerUnavailableError
from keeptake.ledger.serving import ServingPool
from keeptake.ledger.statistics import STATISTICS, overview
from keeptake.records import rfc3339

FRESH_S = 30.0  # older than this: answer, and count anew behind the answer
STALE_S = 60.0  # older than this: count before answering
COUNTING_S = 120.0


class Overview(NamedTuple):
    """Statistics as they are sent."""

    body: bytes
    etag: str
    counted_s: float

    def fresh_s(self) -> int:
        """Whole seconds for which nothing newer is to be had."""
        return max(0, int(FRESH_S - (time.monotonic() - self.counted_s)))


class StatisticsCache:
    """The statistics that this process counted last.

    Parameters
    ----------
    pool : ServingPool
        Where they are counted.
    deadline_s : float
        Seconds that a call waits for a count.
    """

    def __init__(self, pool: ServingPool, *, deadline_s: float) -> None:
        self._pool = pool
        self._deadline_s = deadline_s
        self._last: Overview | None = None
        self._counting: asyncio.Task[Overview] | None = None

    async def overview(self) -> Overview:
        """Statistics at most `STALE_S` old.

        Raises
        ------
        LedgerUnavailableError
            If they cannot be counted in time; the counting goes on, and a later call finds them.
        """
        age_s = time.monotonic() - self._last.counted_s if self._last else float("inf")
        if self._last and age_s <= FRESH_S:
            return self._last
        if self._counting is None or self._counting.done():
            self._counting = asyncio.get_running_loop().create_task(self._count())
            self._counting.add_done_callback(
                lambda task: task.cancelled() or task.exception()
            )  # a failed count is asked for again
        if self._last and age_s <= STALE_S:
            return self._last
        done, _ = await asyncio.wait([self._counting], timeout=self._deadline_s)
        if not done:
            raise LedgerUnavailableError("the statistics are still being counted")
        return self._counting.result()

    async def _count(self) -> Overview:
        started_s = time.monotonic()
        rows = await self._pool.rows(STATISTICS, deadline_s=COUNTING_S)
        statistics: dict[str, Any] = overview(rows[0])
        # The tag is of the numbers alone, so a weak one: a recount that found the same is still 304, whichever worker answers.
        etag = f'W/"{hashlib.sha256(json.dumps(statistics).encode()).hexdigest()[:32]}"'
        statistics["generatedAt"] = rfc3339(datetime.now(UTC))
        body = json.dumps({"success": True, "statistics": statistics}, ensure_ascii=False).encode()
        self._last = Overview(body, etag, started_s)
        return self._last
