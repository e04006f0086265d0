"""One stage over many rows: in parallel, in chunks that commit on their own, within a time budget, with progress.

A stage that is killed loses its open chunk and nothing else; a stage whose time is up commits what it has and says what remains.
Belongs here: the loop. Does not: what an item is, where results go (`function`, `save` and `fail` are given).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import TypeVar

from keeptake.compute import Failed, Ok, Pool
from keeptake.errors import ConfigurationError, ModelMissingError, UnavailableError

Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[[str, int, int | None], None]  # stage, done, of how many where that is known


@dataclass
class StageReport:
    """What one pass of a stage did."""

    done: int = 0
    failed: Counter[str] = field(default_factory=Counter)  # by reason
    remaining: int = 0


@dataclass(frozen=True)
class Limits:
    """What one pass may take."""

    budget_s: float  # wall time after which no new item is begun
    chunk_rows: int  # results that are committed together
    item_cpu_s: float  # CPU time; of wall time an item may take `compute.WALL_PER_CPU` times as much
    item_memory_mb: int


def silent(stage: str, done: int, total: int | None) -> None:
    """Report progress to nobody."""


def work_through(
    name: str,
    pool: Pool,
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    save: Callable[[list[Result]], None],
    fail: Callable[[Item, Failed], str],
    limits: Limits,
    progress: Progress = silent,
) -> StageReport:
    """Apply a function to every item and save the results chunk by chunk.

    Parameters
    ----------
    pool : Pool
        Not entered yet: its processes start only where there is work, and end with it.
    function : callable
        Importable by name: it runs in the pool's processes.
    save : callable
        Stores a chunk of results in one commit.
    fail : callable
        Stores that an item failed for good and returns the reason by name; the others go on.

    Returns
    -------
    StageReport
        `remaining` counts the items that the time budget left out.

    Raises
    ------
    ConfigurationError, ModelMissingError, UnavailableError
        If a worker says so, or none can start: it is no fault of the item at hand. What was done before is saved, the others
        wait for the next pass.
    """
    if not items:
        return StageReport()  # without starting any process
    starting = f"{name}: workers load"  # their models: for half a minute on a busy machine
    progress(starting, 0, 1)
    with pool.at_most(len(items)):
        progress(starting, 1, 1)
        return _work(name, pool, function, items, save, fail, limits, progress)


def _work(
    name: str,
    pool: Pool,
    function: Callable[[Item], Result],
    items: Sequence[Item],
    save: Callable[[list[Result]], None],
    fail: Callable[[Item, Failed], str],
    limits: Limits,
    progress: Progress,
) -> StageReport:
    report = StageReport()
    begun = 0
    end = monotonic() + limits.budget_s

    def until_time_is_up() -> Iterator[Item]:
        nonlocal begun
        for item in items:
            if monotonic() >= end:
                return
            begun += 1
            yield item

    chunk: list[Result] = []

    def commit() -> None:
        results = chunk.copy()
        chunk.clear()  # before saving: what failed to be saved is not tried again on the way out
        if results:
            save(results)
        report.done += len(results)

    outcomes = pool.map(
        function,
        until_time_is_up(),
        cpu_s=limits.item_cpu_s,
        memory_mb=limits.item_memory_mb,
    )
    try:
        for item, outcome in outcomes:
            match outcome:
                case Ok(value):
                    chunk.append(value)
                case Failed(error=ConfigurationError() | ModelMissingError() | UnavailableError() as cause):
                    raise cause
                case Failed() as failure:
                    report.failed[fail(item, failure)] += 1
            if len(chunk) >= limits.chunk_rows:
                commit()
            progress(name, report.done + len(chunk) + report.failed.total(), len(items))
    finally:
        commit()
    report.remaining = len(items) - begun
    return report
