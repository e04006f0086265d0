"""How commands answer: JSON alone on stdout, or a table for people."""

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keeptake.rounding import rounded

if TYPE_CHECKING:  # rich is imported where a table is printed: most calls ask for JSON
    from rich.table import Table

Json = Annotated[bool, typer.Option("--json", help="Print JSON, alone on stdout.")]


def print_json(value: Any) -> None:  # noqa: ANN401 -- any JSON value
    """Print one line of JSON."""
    print(json.dumps(value, ensure_ascii=False, default=str))


def print_rows(rows: Iterable[Mapping[str, Any]], as_json: bool, title: str) -> None:
    """Print mappings as JSON lines, or as a table."""
    if as_json:
        for row in rows:
            print_json(row)
        return
    from rich.table import Table

    table = Table(title=title)
    for at, row in enumerate(rows):
        if not at:
            for name in row:
                table.add_column(name)
        table.add_row(*map(_cell, row.values()))
    show(table if table.columns else f"{title}: none")


def _cell(value: object) -> str:
    return "" if value is None else str(rounded(value) if isinstance(value, float) else value)


def show(table: "Table | str") -> None:
    """Print what people read: all of it, as it is. A prompt's `[Chorus]` is no markup, and a long path is not cut off."""
    from rich.console import Console
    from rich.table import Table

    for column in table.columns if isinstance(table, Table) else ():
        column.overflow = "fold"
    Console(markup=False, emoji=False).print(table)


def flat(counts: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Counts and counts by reason as one list.

    >>> flat({"new": 3, "refused": {"not-json": 1}})
    [('new', 3), ('refused: not-json', 1)]
    """
    pairs: list[tuple[str, Any]] = []
    for name, value in counts.items():
        pairs += [(f"{name}: {reason}", n) for reason, n in value.items()] if isinstance(value, Mapping) else [(name, value)]
    return pairs
