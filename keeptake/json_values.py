"""Which JSON may we keep? Parsing that believes nothing, and the guard of every value.

Conventions: a path is a tuple of names and indexes from the outermost object inwards; values stay as JSON has them. What
passes can be stored in Postgres as text and JSONB and printed as JSON again. `null` is the same as absent, and so is an empty
text.

Belongs here: what holds for any JSON that comes from outside. Does not: what a field of a record may be (`records.py`).
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

JSON = (
    Any  # str | int | float | bool | None | list[JSON] | dict[str, JSON]; a recursive alias makes mypy ask for casts at each step
)
Path = tuple[str, ...]

MAX_TEXT = 10_000  # characters of any string
MAX_DEPTH = 20
MAX_INTEGER = 2**63 - 1
MAX_MAGNITUDE = 1e18  # of a fraction: 1e300 becomes 301 digits in JSONB, and no reader takes that for a double again
MAX_DIGITS = 400  # a number of more is read as infinite, for `check_json` to refuse at its place
MIN_MAGNITUDE = 1e-300  # below it Postgres refuses the cast to a double


class UnsoundJsonError(Exception):
    """JSON that may not be kept: of which kind, where, and in words.

    Parameters
    ----------
    kind : str
        `not-json`, `not-an-object`, `invalid`, `too-long` or `missing`.
    path : Path
        Where, from the outermost object inwards; empty for the whole.
    detail : str
        For a person: what was found and what would be accepted.
    """

    def __init__(self, kind: str, path: Path, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.path = path
        self.detail = detail


class RepeatedName(dict[str, JSON]):
    """An object that named one field twice; readers disagree which of the two counts."""

    name: str


def parse_json(text: bytes | str, path: Path = ()) -> JSON:
    """Parse UTF-8 JSON; not-a-number and infinite numbers and repeated names pass, for `check_json` to refuse with their place.

    Raises
    ------
    UnsoundJsonError
        `not-json` for the whole (`invalid` for a text within, whose `path` was given).
    """
    try:
        text = text.decode() if isinstance(text, bytes) else text
        try:
            return _decoder.decode(text)
        except json.JSONDecodeError:
            raise
        except ValueError:  # Python's own guard against integers of thousands of digits
            return _decoder_of_long_numbers.decode(text)
    except UnicodeDecodeError as error:
        raise UnsoundJsonError("not-json", path, f"byte {error.start} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise UnsoundJsonError("invalid" if path else "not-json", path, _no_json(text, error)) from None
    except RecursionError:
        raise UnsoundJsonError("invalid", (*path, *_outermost_too_deep(text)), f"nested deeper than {MAX_DEPTH}") from None


def _no_json(text: bytes | str, error: json.JSONDecodeError) -> str:
    if isinstance(text, str) and text.startswith("\ufeff"):
        return "it begins with a byte order mark (BOM): send UTF-8 without one"
    return f"{error.msg} at character {error.pos}"


def _outermost_too_deep(text: bytes | str) -> Path:
    """Name of the outermost field whose value the parser found too deep; nothing where the whole is no object."""
    depth, name = 0, None
    for piece in _STRUCTURE.findall(text if isinstance(text, str) else ""):
        if piece in "[{":
            depth += 1
            if depth == 1 and piece == "[":
                break
            if depth > MAX_DEPTH:
                return () if name is None else (json.loads(name),)
        elif piece in "]}":
            depth -= 1
        elif depth == 1:
            name = piece
    return ()


def _whole_number(digits: str) -> int | float:
    return int(digits) if len(digits) <= MAX_DIGITS else math.copysign(math.inf, -1 if digits.startswith("-") else 1)


def _collect(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    fields = dict(pairs)
    if len(fields) == len(pairs):
        return fields
    seen: set[str] = set()
    repeated = RepeatedName(fields)
    repeated.name = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]  # add() is None
    return repeated


_decoder = json.JSONDecoder(object_pairs_hook=_collect)
_decoder_of_long_numbers = json.JSONDecoder(object_pairs_hook=_collect, parse_int=_whole_number)
_STRUCTURE = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)


def check_json(value: JSON, path: Path) -> None:
    """Refuse what Postgres could not store or JSON could not print again."""
    kind = type(value)
    if kind is str:
        check_text(value, path)
    elif kind is int:
        if not -MAX_INTEGER <= value <= MAX_INTEGER:
            raise UnsoundJsonError("invalid", path, "an integer has at most 63 bits")
    elif kind is float:
        if value and not MIN_MAGNITUDE <= abs(value) <= MAX_MAGNITUDE:  # false for NaN and infinity as well
            raise UnsoundJsonError("invalid", path, f"expected a number up to {MAX_MAGNITUDE:g}, found {value}")
    elif kind is dict or kind is list:
        if len(path) >= MAX_DEPTH:
            raise UnsoundJsonError("invalid", path, f"nested deeper than {MAX_DEPTH}")
        if kind is dict:
            for name, inner in value.items():
                check_text(name, (*path, name))
                check_json(inner, (*path, name))
        else:
            for index, inner in enumerate(value):
                check_json(inner, (*path, str(index)))
    elif kind is RepeatedName:
        raise UnsoundJsonError("invalid", (*path, value.name), f"the field {value.name[:40]!r} stands there twice")
    elif value is not None and kind is not bool:
        raise UnsoundJsonError("invalid", path, f"expected a JSON value, found {kind.__name__}")


def check_text(text: str, path: Path) -> None:
    """Refuse text that Postgres or UTF-8 has no place for."""
    if len(text) > MAX_TEXT:
        raise UnsoundJsonError("too-long", path, f"at most {MAX_TEXT} characters, found {len(text)}")
    if "\0" in text:
        raise UnsoundJsonError("invalid", path, "NUL characters cannot be stored")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UnsoundJsonError("invalid", path, "half of a surrogate pair cannot be stored") from None


def text_in(fields: Mapping[str, JSON], name: str, path: Path = (), *, most: int = MAX_TEXT) -> str | None:
    """Take a text, None where it is absent, null, empty or blank."""
    value = fields.get(name)
    if value is None:
        return None
    if type(value) is not str:
        raise UnsoundJsonError("invalid", (*path, name), f"expected text, found {kind_of(value)}")
    if len(value) > most:
        raise UnsoundJsonError("too-long", (*path, name), f"at most {most} characters, found {len(value)}")
    return None if not value or value.isspace() else value


def number_in(
    fields: Mapping[str, JSON], name: str, path: Path = (), *, most: float, least: float = 0, is_zero_allowed: bool = True
) -> float | int | None:
    """Take a number in [least, most] as it was given, None where it is absent, null or an empty text."""
    value = fields.get(name)
    if value is None or value == "":
        return None
    if type(value) is not int and type(value) is not float:
        raise UnsoundJsonError("invalid", (*path, name), f"expected a number, found {kind_of(value)}")
    if not least <= value <= most or (value == 0 and not is_zero_allowed):
        bound = f"from {least:g}" if is_zero_allowed else "above 0"
        raise UnsoundJsonError("invalid", (*path, name), f"expected a number {bound} and up to {most:g}, found {value}")
    return value


def truth_in(fields: Mapping[str, JSON], name: str, path: Path = ()) -> bool | None:
    """Take a truth value, None where it is absent, null or an empty text."""
    value = fields.get(name)
    if value is None or value == "":
        return None
    if type(value) is not bool:
        raise UnsoundJsonError("invalid", (*path, name), f"expected true or false, found {kind_of(value)}")
    return value


def object_in(fields: Mapping[str, JSON], name: str, path: Path = ()) -> dict[str, JSON] | None:
    """Take an object, None where it is absent, null or an empty text."""
    value = fields.get(name)
    if value is None or value == "":
        return None
    if type(value) is not dict:
        raise UnsoundJsonError("invalid", (*path, name), f"expected an object, found {kind_of(value)}")
    return value


def pointer_to(path: Path) -> str:
    """Write a path as a JSON pointer (RFC 6901), in characters that can be stored and at most 256 of them."""
    steps = (step.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0") for step in path)
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)[:256]


def kind_of(value: JSON) -> str:
    """Name the kind of a value in words."""
    names = {str: "text", bool: "a truth value", int: "a number", float: "a number", list: "an array", type(None): "null"}
    return names.get(type(value), "an object")
