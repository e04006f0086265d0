"""What becomes of raw records: believed and stored, replayed silently, or refused and kept.

Each batch is one transaction with the cursor that follows it: an import that is killed goes on from there, or reads again what it
knows, and says nothing twice. Belongs here: the one path from any source into the ledger. Does not: where records come from, what
makes them believable.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from keeptake.ledger import generations as ledger_rows
from keeptake.ledger.connection import Ledger
from keeptake.ledger.generations import Outcome, Refusal
from keeptake.records import Accepted, read_record
from keeptake.sources.source import Batch, RawRecord, Source, require_root
from keeptake.stage import Progress, silent

_CONFLICT = "the generationId is known with other capture fields; give a new take a new generationId"


@dataclass
class IntakeReport:
    """What one reading brought."""

    new: int = 0
    replayed: int = 0
    feedback_updates: int = 0
    blank: int = 0
    refused: Counter[str] = field(default_factory=Counter)  # by reason, those known from earlier readings included
    failed: dict[str, str] = field(default_factory=dict)  # sources that broke off, and why

    @property
    def records(self) -> int:
        """Records read, blank lines left out."""
        return self.new + self.replayed + self.refused.total()

    def add(self, other: "IntakeReport") -> None:
        """Add another reading's counts to these."""
        self.new += other.new
        self.replayed += other.replayed
        self.feedback_updates += other.feedback_updates
        self.blank += other.blank
        self.refused += other.refused
        self.failed |= other.failed

    def as_dict(self) -> dict[str, Any]:
        """The counts, as JSON."""
        return {
            "new": self.new,
            "replayed": self.replayed,
            "feedback_updates": self.feedback_updates,
            "refused": dict(self.refused),
            "failed": self.failed,
        }


def take_in(source: Source, ledger: Ledger, *, is_resuming: bool = True, progress: Progress = silent) -> IntakeReport:
    """Read a source to its end.

    Parameters
    ----------
    source : Source
        Where to read.
    ledger : Ledger
        Where to write.
    is_resuming : bool
        Go on from the stored cursor; False reads from the top, which replays what is known.
    progress : Progress
        Told of the records read so far; the total is not known before the end.

    Returns
    -------
    IntakeReport
        Counts of this reading.

    Raises
    ------
    ConfigurationError, UnavailableError
        If it cannot be read, or breaks off; what came before is kept.
    """
    require_root(source)
    report = IntakeReport()
    with ledger.begin() as connection:
        cursor = ledger_rows.cursor_of(connection, source.name) if is_resuming else None
    for batch in source.batches(cursor):
        with ledger.begin() as connection:
            part = _take_batch(connection, batch, source)
        report.add(part)
        progress(f"import {source.name}", report.records, None)
    progress(f"import {source.name}", report.records, report.records)
    return report


def _take_batch(connection: sa.Connection, batch: Batch, source: Source) -> IntakeReport:
    believed: list[tuple[RawRecord, Accepted]] = []
    refusals: list[Refusal] = []
    report = IntakeReport()
    for record in batch.records:
        if not record.raw.strip():
            report.blank += 1
            continue
        read = read_record(record.raw)
        if isinstance(read, Accepted):
            believed.append((record, read))
        else:
            refusals.append(Refusal(source.name, record.line, read.generation_id, read.reason, read.detail, record.raw))
    root = None if source.audio_root is None else str(source.audio_root)
    outcomes, report.feedback_updates = ledger_rows.accept(
        connection, [accepted for _, accepted in believed], source=source.name, audio_root=root
    )
    for (record, accepted), outcome in zip(believed, outcomes, strict=True):
        if outcome is Outcome.CONFLICT:
            name = accepted.generation.generation_id
            refusals.append(Refusal(source.name, record.line, name, "conflict", _CONFLICT, record.raw))
    ledger_rows.refuse(connection, refusals)
    if batch.cursor is not None:
        ledger_rows.move_cursor(connection, source.name, batch.cursor)
    counts = Counter(outcomes)
    report.new, report.replayed = counts[Outcome.NEW], counts[Outcome.REPLAYED]
    report.refused = Counter(refusal.reason for refusal in refusals)
    return report
