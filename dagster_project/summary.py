"""What the command line says at the end of long work, for people.

Belongs here: tables in a terminal. Does not: the numbers (`keeptake/ledger/status.py`, `overviews.py`).
"""

import re
from collections.abc import Mapping
from typing import Any

import polars as pl
from rich.table import Table

from dagster_project.cli_output import show

BARS = "▁▂▃▄▅▆▇█"
TEMPO_TOLERANCE = 0.04  # as mir_eval's Accuracy1


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


def tempo_verdict(asked_bpm: float, heard_bpm: float | None) -> str:
    """Say how a heard tempo meets the asked one: as asked, an octave away, other, or none heard."""
    if heard_bpm is None:
        return "none heard"
    for factor, verdict in ((1.0, "as asked"), (0.5, "half or double"), (2.0, "half or double")):
        if abs(heard_bpm - asked_bpm * factor) <= TEMPO_TOLERANCE * asked_bpm * factor:
            return verdict
    return "other"


def _tempo_counts(pairs: pl.DataFrame) -> dict[str, int]:
    counts = dict.fromkeys(("as asked", "half or double", "other", "none heard"), 0)
    for asked, heard in pairs.select("bpm_asked", "tempo_bpm").drop_nulls("bpm_asked").iter_rows():
        number = re.search(r"\d+(\.\d+)?", asked)
        if number:
            counts[tempo_verdict(float(number[0]), heard)] += 1
    return counts


def _key_counts(pairs: pl.DataFrame) -> dict[str, int]:
    asked = pairs.drop_nulls("key_asked")
    same = asked.filter(pl.col("key_asked") == pl.col("key")).height
    none = asked["key"].null_count()
    return {"as asked": same, "other": asked.height - same - none, "none heard": none}


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
    table.add_row("tempo found against asked", _line(_tempo_counts(pairs)))
    table.add_row("key found against asked", _line(_key_counts(pairs)))
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
