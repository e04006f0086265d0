"""How commands answer: JSON alone on stdout, or a table for people."""

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

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
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for at, row in enumerate(rows):
        if not at:
            for name in row:
                table.add_column(name)
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    Console().print(table if table.columns else f"{title}: none")
