"""What is said of a take that the ledger does not hold. Belongs here: that sentence, for whichever command was asked."""

import difflib

import sqlalchemy as sa

from keeptake.ledger.tables import generations

_MOST_COMPARED = 1_000


def no_such_take(connection: sa.Connection, generation_id: str) -> str:
    """Name the take that reads most like the one asked for, or the command that lists them."""
    alike = generations.c.generation_id.startswith(generation_id[:6], autoescape=True)
    listed = connection.scalars(sa.select(generations.c.generation_id).where(alike).limit(_MOST_COMPARED))
    near = difflib.get_close_matches(generation_id, listed, n=1)
    return f"no take {generation_id}" + (f": did you mean {near[0]}?" if near else ": `keeptake status --rows` lists them")
