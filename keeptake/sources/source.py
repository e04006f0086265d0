"""What every source is: batches of raw records, each with the place to go on from once it is committed.

Conventions: a source believes nothing and drops nothing; it hands over bytes as they came. Its name is how the ledger knows it,
without secrets. Belongs here: the shape that sources share. Does not: one kind of source (a file each), what becomes of a record
(`intake.py`).
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from keeptake.errors import ConfigurationError
from keeptake.json_values import JSON

BATCH_RECORDS = 1000
NEWS_WITHIN_S = 20.0  # of a sensor's tick, which Dagster ends after 60 s


class RawRecord(NamedTuple):
    """A record as it came: its line from 1 where the source has lines."""

    line: int | None
    raw: bytes


@dataclass(frozen=True)
class Batch:
    """Records that are committed together, and the cursor that is committed with them (None: it stays where it is)."""

    records: list[RawRecord]
    cursor: JSON | None


class Source(Protocol):
    """Where generations come from."""

    @property
    def name(self) -> str:
        """How the ledger knows it; never raises."""

    @property
    def audio_root(self) -> Path | None:
        """Folder under which its relative audio URLs are resolved, and nowhere else."""

    def batches(self, cursor: JSON | None) -> Iterator[Batch]:
        """Read on from a cursor; None, or one that makes no sense any more, starts from the top."""

    def has_news(self, cursor: JSON | None, *, within_s: float = NEWS_WITHIN_S) -> bool:
        """Tell cheaply, within about that many seconds, whether reading on may bring something that was not taken in yet."""


def text_of(path: Path) -> str:
    r"""Say a path in a text that the ledger takes: a byte that is no UTF-8 stands as `\xNN`."""
    return os.fsencode(path).decode(errors="backslashreplace")


def require_root(source: Source) -> None:
    """Refuse a source whose folder the ledger could not find again.

    Raises
    ------
    ConfigurationError
        If the folder's path is no UTF-8.
    """
    root = source.audio_root
    if root is not None and text_of(root) != str(root):
        raise ConfigurationError(f"the folder {text_of(root)} has a name that is no UTF-8: rename it")
