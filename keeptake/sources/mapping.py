"""What are the fields of somebody else's records called? A record in our names, made from one in theirs.

Conventions: a path is names joined by dots, ours ("generationParams.bpm") and theirs ("meta.tempo"). What is not mapped keeps its
own name, so that nothing is lost. Belongs here: renaming. Does not: believing values (`records.py`).
"""

import json
from collections.abc import Mapping
from typing import Any

from keeptake.json_values import JSON


def at_path(value: JSON, path: str) -> JSON | None:
    """Look a path up; None where it leads nowhere. The empty path is the value itself."""
    for step in path.split(".") if path else ():
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isdigit():
            value = value[int(step)] if int(step) < len(value) else None
        else:
            return None
    return value


def renamed(item: Mapping[str, JSON], fields: Mapping[str, str], defaults: Mapping[str, JSON]) -> dict[str, JSON]:
    """Make a record of an item.

    Parameters
    ----------
    item : Mapping
        The item as it came; it is not changed.
    fields : Mapping
        Our path to theirs.
    defaults : Mapping
        Values of our top-level fields that the item does not have.

    >>> renamed({"id": "a", "meta": {"tempo": 90}, "x": 1}, {"generationId": "id", "generationParams.bpm": "meta.tempo"}, {})
    {'x': 1, 'generationId': 'a', 'generationParams': {'bpm': 90}}
    """
    record: dict[str, Any] = json.loads(json.dumps(item))
    taken = {path: at_path(record, path) for path in fields.values()}
    for path in taken:
        _drop(record, path)
    for ours, theirs in fields.items():
        if taken[theirs] is not None:
            _put(record, ours, taken[theirs])
    return record | {name: value for name, value in defaults.items() if record.get(name) is None}


def _drop(record: dict[str, Any], path: str) -> None:
    *outer, last = path.split(".")
    inner = at_path(record, ".".join(outer))
    if isinstance(inner, dict):
        inner.pop(last, None)
        if outer and not inner:
            _drop(record, ".".join(outer))


def _put(record: dict[str, Any], path: str, value: JSON) -> None:
    *outer, last = path.split(".")
    for step in outer:
        inner = record.get(step)
        if not isinstance(inner, dict):
            inner = record[step] = {}
        record = inner
    record[last] = value
