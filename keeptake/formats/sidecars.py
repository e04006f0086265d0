"""JSON as published files hold it. Belongs here: the one way in which formats write JSON. Does not: what a format says."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

SPLITS = ("train", "valid", "test")
HF_SPLITS = {"train": "train", "valid": "validation", "test": "test"}  # names that Hugging Face's own tools look for


def line(value: Mapping[str, Any]) -> str:
    """Write one object on one line; not-a-number is refused, as readers disagree what it means."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def write_lines(path: Path, values: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON lines, each ended by a newline and none blank: AudioCraft parses a blank last line and fails."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(line(value) + "\n" for value in values)


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401 -- any JSON value
    """Write one indented document with its keys in the order given."""
    path.write_text(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1) + "\n", encoding="utf-8", newline="\n")
