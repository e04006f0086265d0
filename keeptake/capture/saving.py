"""Save generations: one statement, then, only for those that were known, a look at what is there.

Belongs here: what a save means (new, replayed, in conflict). Does not: HTTP (`routes_write.py`), SQL (`ledger/saves.py`).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from keeptake.errors import LedgerUnavailableError
from keeptake.ledger.saves import GIVE_FEEDBACK, KNOWN, SAID, SAVE, identified, json_text, save_rows
from keeptake.ledger.serving import ServingPool
from keeptake.records import FEEDBACK, Accepted

Step = Callable[[str], None]
STEPS = ("before-save", "after-save", "after-look", "before-answer")
"""Named places of a save, in order; a test may kill the process at each of them."""


def no_step(name: str) -> None:
    """Pass a step by."""


class Saved(NamedTuple):
    """What became of one generation."""

    generation_id: str
    metadata_id: int | None  # None: in conflict
    status: str
    is_replayed: bool


async def save(pool: ServingPool, records: Sequence[Accepted], actor: str, step: Step = no_step) -> list[Saved]:
    """Save generations, new ones in one transaction, and say what became of each, in order.

    A generation that is known under the same capture fields is a replay: what its feedback changes is applied, by itself. One
    that is known under others is in conflict.
    """
    told_apart = identified(records)
    first: dict[str, tuple[Accepted, bytes]] = {}
    for record, identity in told_apart:
        first.setdefault(record.generation.generation_id, (record, identity))
    step("before-save")
    rows = await pool.rows(SAVE, (save_rows(first.values()), actor))
    step("after-save")
    new = {generation_id: (metadata_id, status) for generation_id, metadata_id, status in rows}
    known = {}
    if len(new) < len(records):
        names = sorted(first) if len(first) < len(records) else sorted(set(first) - set(new))
        known = {row["generation_id"]: row for row in await pool.mappings(KNOWN, (names,))}
        step("after-look")
    results = []
    for record, identity in told_apart:
        name = record.generation.generation_id
        if name in new and record is first[name][0]:
            results.append(Saved(name, *new[name], is_replayed=False))
        elif name not in known:  # it stood in the way of our row, and an outage took it before we could look
            raise LedgerUnavailableError("the ledger lost a row in an outage: send this save again")
        else:
            results.append(await _repeated(pool, record, identity, known[name], actor))
    step("before-answer")
    return results


async def _repeated(pool: ServingPool, record: Accepted, identity: bytes, known: dict[str, Any], actor: str) -> Saved:
    name = record.generation.generation_id
    if bytes(known["identity_sha256"]) != identity:
        return Saved(name, None, known["status"], is_replayed=False)
    said = record.feedback.given() if record.feedback else {}
    changed = {}
    if said:
        before = (await pool.rows(SAID, (known["id"], actor)))[0][0] or {}
        last = {field: before.get(field, known[field]) for field in FEEDBACK}
        changed = {field: value for field, value in said.items() if value != last[field]}
    if changed:
        await pool.rows(GIVE_FEEDBACK, (json_text(changed), name, actor))
        known.update(changed)
    return Saved(name, known["id"], known["status"], is_replayed=True)
