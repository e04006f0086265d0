"""The data dictionary, written from the tables: `python -m keeptake.ledger.dictionary > docs/data-dictionary.md`.

Belongs here: turning the shape into a page. Does not: the shape (`tables.py`).
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from keeptake.ledger.tables import metadata

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves its dialects' constructors untyped
_UNITS = {
    "_bpm": "beats per minute",
    "_s": "seconds",
    "_hz": "hertz",
    "_lufs": "LUFS",
    "_lu": "LU",
    "_db": "decibels",
    "_dbtp": "decibels true peak",
    "_cents": "cents",
    "_bytes": "bytes",
    "_at": "UTC time",
    "_on": "UTC day",
    "_share": "share, 0 to 1",
    "_probability": "probability, 0 to 1",
    "_confidence": "0 to 1",
}


def data_dictionary() -> str:
    """Describe every table and column of the ledger as Markdown."""
    parts = [
        "# Data dictionary",
        "Written from the code by `make docs`; a test keeps it equal. The ledger's tables live in the schema `public`.",
    ]
    for table in sorted(metadata.tables.values(), key=lambda table: table.name):
        lines = ["| column | type | empty? | what |", "|---|---|---|---|", *(_line(column) for column in table.columns)]
        key = ", ".join(column.name for column in table.primary_key.columns)
        parts += [f"## {table.name}", f"Key: {key}.", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def _line(column: sa.Column[object]) -> str:
    kind = str(column.type.compile(_DIALECT)).lower()
    unit = next((unit for ending, unit in _UNITS.items() if column.name.endswith(ending)), "")
    points = [f"→ {key.target_fullname}" for key in column.foreign_keys]
    what = "; ".join(filter(None, [column.comment or "", unit, *points])).replace("|", "\\|")
    return f"| {column.name} | {kind} | {'yes' if column.nullable else 'no'} | {what} |"


if __name__ == "__main__":
    print(data_dictionary(), end="")
