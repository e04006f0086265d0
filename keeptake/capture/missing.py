"""Tell people, once, which announced generations never came.

Belongs here: the alert about missing metadata, called by a sensor. Does not: which they are (`ledger/expected.py`).
"""

from collections import Counter
from collections.abc import Sequence

from keeptake.ledger.connection import Ledger
from keeptake.ledger.expected import Missing, mark_alerted, tick_missing
from keeptake.notify import notify

EXAMPLES = 10


def alert_missing(ledger: Ledger, urls: Sequence[str]) -> list[Missing]:
    """Look once; send one alert for whatever was missing at two looks in a row. An alert that nobody took is sent again.

    Returns
    -------
    list of Missing
        What this look told people about.
    """
    due = tick_missing(ledger)
    if not due:
        return []
    counts = Counter(item.provider for item in due)
    by_provider = ", ".join(f"{provider}: {count}" for provider, count in sorted(counts.items()))
    examples = ", ".join(item.generation_id for item in due[:EXAMPLES])
    body = f"announced and never saved: {by_provider}; for example {examples}. Save them again, or mend the sender."
    if not notify("Missing metadata", body, urls):
        return []
    mark_alerted(ledger, due)
    return due
