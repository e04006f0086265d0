"""Progress of long work: into a log every few seconds, or into a bar in a terminal.

A stage calls `progress(stage, done, total)` as often as it likes. Belongs here: who listens. Does not: the work.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from keeptake.stage import Progress

LOG_EVERY_S = 10.0

_terminal: Progress | None = None


def to_log(log: Callable[[str], None], *, every_s: float = LOG_EVERY_S) -> Progress:
    """Make a listener that writes a line every few seconds, and feeds the terminal's bar where one is shown.

    A stage that begins is named at once, since nobody knows how long its first step takes; its end is told too.
    """
    last_s, last_stage = monotonic(), ""

    def listen(stage: str, done: int, total: int | None) -> None:
        nonlocal last_s, last_stage
        if _terminal is not None:
            _terminal(stage, done, total)
        if monotonic() - last_s >= every_s or done == total or stage != last_stage:
            last_s, last_stage = monotonic(), stage
            of = "" if total is None else f" of {total:,}"
            log(f"{stage}: {'done' if done else 'begun'}" if total == 1 else f"{stage}: {done:,}{of}")

    return listen


@contextmanager
def bar() -> Iterator[Progress]:
    """Show a bar a stage on the terminal's error stream while the block runs; yields what feeds it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    global _terminal
    tasks: dict[str, TaskID] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # Left to itself the bar takes stdout over as well, and what a command answers there would end on stderr.
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as shown:

        def listen(stage: str, done: int, total: int | None) -> None:
            if stage not in tasks:
                tasks[stage] = shown.add_task(stage, total=total)
            shown.update(tasks[stage], completed=done, total=total)

        _terminal = listen
        try:
            yield listen
        finally:
            _terminal = None
