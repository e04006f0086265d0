"""What the command line says at the end of long work, for people.

Belongs here: tables in a terminal. Does not: the numbers (`keeptake/ledger/status.py`, `overviews.py`).
"""

from collections.abc import Mapping
from typing import Any

import polars as pl
from rich.table import Table

from dagster_project.cli_output import show

BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: list[int]) -> str:
    """Draw counts as one line of bars.

    >>> sparkline([0, 1, 2, 4])
    '▁▃▅█'
    """
    most = max(values, default=0) or 1
    return "".join(BARS[round(value / most * (len(BARS) - 1))] for value in values)


def print_status(counts: Mapping[str, Any], *, by_day: list[int], by_tenth: list[int]) -> None:
    """Print the counts of `keeptake status` for people.

    Parameters
    ----------
    counts : Mapping
        As `ledger.status.status` gives them.
    by_day : list of int
        Takes captured on each of the last days, today's last.
    by_tenth : list of int
        Takes by tenths of their quality score.
    """
    table = Table(title="Keeptake", show_header=False)
    for name, value in counts.items():
        if isinstance(value, Mapping):
            for reason, rows in value.items():
                table.add_row(f"{name.replace('_', ' ')}: {reason}", f"{rows:,}")
        else:
            table.add_row(name, f"{value:,}")
    if any(by_day):
        table.add_row(f"last {len(by_day)} days, today {by_day[-1]:,}", sparkline(by_day))
    if any(by_tenth):
        table.add_row("scores from 0 to 1", sparkline(by_tenth))
    show(table)


def _verdicts(pairs: pl.DataFrame, term: str) -> dict[str, int]:
    """How often each verdict on a term was given, the most frequent first, where it was asked for at all."""
    given = pairs[f"{term}_verdict"].drop_nulls()
    counts = given.filter(given != "not-asked").value_counts()
    return dict(counts.sort(["count", f"{term}_verdict"], descending=[True, False]).iter_rows())


def print_demo(
    counts: Mapping[str, Any], chosen: Mapping[str, int], pairs: pl.DataFrame, published: Mapping[str, Any], seconds: float
) -> None:
    """Print the summary of `keeptake demo`."""
    table = Table(title=f"Keeptake's main job, end to end, in {seconds:.0f} s", show_header=False)
    table.add_row("captured", f"{counts['generations']}")
    table.add_row("audio in custody", f"{counts['audio'].get('stored', 0)}")
    for reason, rows in counts["audio_reasons"].items():
        table.add_row(f"  quarantined: {reason}", str(rows))
    table.add_row("heard, placed, scored", f"{counts['analyzed']}, {counts['embedded']}, {counts['scored']}")
    table.add_row("tempo found against asked", _line(_verdicts(pairs, "tempo")))
    table.add_row("key found against asked", _line(_verdicts(pairs, "key")))
    for reason, rows in chosen.items():
        table.add_row("kept for training" if reason == "kept" else f"  left out: {reason}", str(rows))
    table.add_row("published", f"{published['name']} {published['version']}: {_line(published['rows'])}")
    table.add_row("the dataset lies in", str(published["path"]))
    table.add_row("look at it in the Dagster UI", "make up")
    show(table)


def _line(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {rows}" for name, rows in counts.items())


def print_story(story: Mapping[str, Any]) -> None:
    """Print what `keeptake explain` tells of a take, a chapter a table row."""
    table = Table(title=f"The story of {story['generation_id']}", show_header=False, show_lines=True)
    for chapter, told in story.items():
        if chapter != "generation_id":
            table.add_row(chapter.replace("_", " "), _told(told))
    show(table)


def _told(value: Any, indent: str = "") -> str:  # noqa: ANN401 -- any JSON value
    if isinstance(value, Mapping):
        return "\n".join(_line_of(name, item, indent) for name, item in value.items() if item not in (None, [], {}, ""))
    if isinstance(value, list):
        return "\n".join(_told(item, indent) for item in value) or "none"
    return f"{indent}{value:g}" if isinstance(value, float) else f"{indent}{value}"


def _line_of(name: str, item: Any, indent: str) -> str:  # noqa: ANN401 -- any JSON value
    if isinstance(item, Mapping | list):
        return f"{indent}{name}:\n{_told(item, indent + '  ')}"
    return f"{indent}{name}: {_told(item)}"
