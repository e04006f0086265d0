"""The score that a feedback call answers with: by the very expressions that the graph scores with.

One Polars pass costs milliseconds however few rows it has, so rows that come in while a pass is running wait for the next one and
share it: under load dozens of calls pay for one. Belongs here: that sharing. Does not: the formula (`curation/quality.py`).
"""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import polars as pl

from keeptake.curation.quality import HEARD, SAID, seed_v1

_SCHEMA: dict[str, Any] = dict.fromkeys(HEARD, pl.Float64()) | dict(SAID)
_TOTAL = seed_v1()


def principal_scores(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """Score rows that hold the columns of `HEARD` and `SAID`."""
    columns = {name: [row[name] for row in rows] for name in _SCHEMA}
    return pl.DataFrame(columns, schema=_SCHEMA).select(_TOTAL).to_series().to_list()


class Scorer:
    """Scores rows as they come, many in one pass."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Mapping[str, Any], asyncio.Future[float]]] = []
        self._passing: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="score")

    async def score(self, row: Mapping[str, Any]) -> float:
        """Total of one take."""
        loop = asyncio.get_running_loop()
        total: asyncio.Future[float] = loop.create_future()
        self._waiting.append((row, total))
        if self._passing is None or self._passing.done():
            self._passing = loop.create_task(self._score_waiting())
        return await total

    async def _score_waiting(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                totals = await loop.run_in_executor(self._thread, principal_scores, [row for row, _ in batch])
            except Exception as fault:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(fault)
                continue
            for (_, future), total in zip(batch, totals, strict=True):
                if not future.done():
                    future.set_result(total)

    def close(self) -> None:
        """End its thread."""
        self._thread.shutdown(wait=False)
