"""What an asset shows of itself in the UI: counts, tables, pictures, column schemas.

Belongs here: turning frames and PNG bytes into Dagster metadata. Does not: the queries, the drawing.
"""

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg
import polars as pl
import sqlalchemy as sa

from keeptake.rounding import rounded

MAX_ROWS = 50
_PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")


def counts(rows: Mapping[str, int], *, name: str = "reason") -> dg.TableMetadataValue:
    """Show counts as a table, in the order given."""
    columns = [dg.TableColumn(name, "string"), dg.TableColumn("rows", "int")]
    records = [dg.TableRecord({name: key, "rows": n}) for key, n in rows.items()]
    return dg.MetadataValue.table(records, schema=dg.TableSchema(columns=columns))


def table(frame: pl.DataFrame, *, of: int | None = None) -> dg.TableMetadataValue:
    """Show the first rows of a frame, and in a last row how many there are where not all are shown.

    Parameters
    ----------
    frame : pl.DataFrame
    of : int, optional
        Rows that there are in all, where the frame is cut already.
    """
    kinds = {
        name: "float" if kind.is_float() else "int" if kind.is_integer() else "string" for name, kind in frame.schema.items()
    }
    schema = dg.TableSchema(columns=[dg.TableColumn(name, kind) for name, kind in kinds.items()])
    records = [dg.TableRecord(_plain(row)) for row in frame.head(MAX_ROWS).to_dicts()]
    there = max(frame.height, of or 0)
    if records and there > len(records):  # in a row, since the UI shows a table without any words of ours
        said = f"{len(records):,} of {there:,} shown"
        records.append(dg.TableRecord({name: None if at else said for at, name in enumerate(frame.columns)}))
    return dg.MetadataValue.table(records, schema=schema)


def _plain(row: dict[str, Any]) -> dict[str, str | int | float | bool | None]:
    return {name: _shown(value) for name, value in row.items()}


def _shown(value: object) -> str | int | float | bool | None:
    if isinstance(value, float):
        return rounded(value)
    return value if isinstance(value, str | int | bool | None) else str(value)


def pictures(images: Mapping[str, bytes]) -> dg.MarkdownMetadataValue:
    """Show PNG images inline, each under its title."""
    return dg.MetadataValue.md("\n\n".join(f"**{escaped(title)}**\n\n{inline(png, title)}" for title, png in images.items()))


def figures(images: Mapping[str, bytes]) -> dg.MarkdownMetadataValue:
    """Show PNG images inline that carry their titles themselves."""
    return dg.MetadataValue.md("\n\n".join(inline(png, title) for title, png in images.items()))


def inline(png: bytes, title: str) -> str:
    """Markdown of an image that needs nothing from anywhere."""
    return f"![{escaped(title)}](data:image/png;base64,{b64encode(png).decode()})"


def escaped(text: str) -> str:
    """Markdown that shows foreign text as it is: a prompt must not load an image from somewhere, nor end a table's row."""
    return _PUNCTUATION.sub(r"\\\g<0>", " ".join(text.split()))


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown of a table whose cells are Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def schema_of(*tables: sa.Table) -> dg.TableSchema:
    """Column schema of ledger tables, with what each column means."""
    columns = {
        column.name: dg.TableColumn(
            column.name,
            str(column.type).lower(),
            description=column.comment,
            constraints=dg.TableColumnConstraints(nullable=bool(column.nullable)),
        )
        for table in tables
        for column in table.columns
    }
    return dg.TableSchema(columns=list(columns.values()))


def schema_of_frame(frame: pl.DataFrame) -> dg.TableSchema:
    """Column schema of a frame."""
    return dg.TableSchema(columns=[dg.TableColumn(name, str(kind).lower()) for name, kind in frame.schema.items()])
