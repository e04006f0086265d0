"""The data dictionary, written from the tables: `python -m keeptake.ledger.dictionary > docs/data-dictionary.md`.

Belongs here: turning the shape into a page. Does not: the shape (`tables.py`; of an analysis, `keeptake/audio/record.py`).
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from keeptake.audio.record import RECORDS, Values
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
    "_dbfs": "decibels of full scale",
    "_share": "share, 0 to 1",
    "_probability": "probability, 0 to 1",
    "_confidence": "0 to 1",
}
_BOUNDS = {"exclusiveMinimum": ">", "minimum": "≥", "maximum": "≤"}


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
    parts += [
        "## What an analysis says",
        "In `analyses.result` of each part, and in `parts` of a line of `keeptake analyze`. "
        "A part that cannot be heard has a reason instead.",
        *(text for part, record in RECORDS.items() for text in _part(part, record)),
    ]
    return "\n\n".join(parts) + "\n"


def _line(column: sa.Column[object]) -> str:
    kind = str(column.type.compile(_DIALECT)).lower()
    points = [f"→ {key.target_fullname}" for key in column.foreign_keys]
    what = "; ".join(filter(None, [column.comment or "", _unit(column.name), *points])).replace("|", "\\|")
    return f"| {column.name} | {kind} | {'yes' if column.nullable else 'no'} | {what} |"


def _part(part: str, record: type[Values]) -> list[str]:
    """Heading, sentence and table of one part of an analysis."""
    schema = record.model_json_schema()
    lines = [
        f"| {name} | {_kind(value, schema)} | {'yes' if _may_be_null(value) else 'no'} | "
        f"{'; '.join(filter(None, [value['description'], _unit(name)]))} |"
        for name, value in schema["properties"].items()
    ]
    return [f"### {part}", str(record.__doc__), "\n".join(["| value | type | null? | what |", "|---|---|---|---|", *lines])]


def _kind(value: dict[str, Any], schema: dict[str, Any]) -> str:
    """A value's JSON Schema in a few words: its type, with the range of a number and what a list holds."""
    if "$ref" in value:
        return f"{{{', '.join(schema['$defs'][value['$ref'].rsplit('/')[-1]]['properties'])}}}"
    if "anyOf" in value:
        return next(_kind(choice | {key: value[key] for key in value.keys() & _BOUNDS}, schema) for choice in value["anyOf"])
    if value["type"] == "array":
        inside = [_kind(item, schema) for item in value.get("prefixItems", [])]
        length = f"{value['minItems']} of " if "minItems" in value and not inside else ""
        return f"[{', '.join(inside)}]" if inside else f"list of {length}{_kind(value['items'], schema)}"
    if value["type"] == "object":
        return f"text: {_kind(value['additionalProperties'], schema)}"
    kind = "text" if value["type"] == "string" else str(value["type"])
    if "minimum" in value and "maximum" in value:
        return f"{kind} {value['minimum']:g} to {value['maximum']:g}"
    return " ".join([kind, *(f"{sign} {value[key]:g}" for key, sign in _BOUNDS.items() if key in value)])


def _may_be_null(value: dict[str, Any]) -> bool:
    return {"type": "null"} in value.get("anyOf", [])


def _unit(name: str) -> str:
    return next((unit for ending, unit in _UNITS.items() if name.endswith(ending)), "")


if __name__ == "__main__":
    print(data_dictionary(), end="")
