"""Alerts to people: through Apprise to wherever the operator chose, and always into the log.

Belongs here: sending. Does not: deciding what is worth an alert (`dagster_project/failures.py`).
"""

import logging
from collections.abc import Sequence

log = logging.getLogger(__name__)


def notify(title: str, body: str, urls: Sequence[str]) -> bool:
    """Send an alert to every address.

    Parameters
    ----------
    urls : sequence of str
        Apprise addresses; none: the log alone.

    Returns
    -------
    bool
        Whether every address took it; a failure to send is logged and never raised: it must not hide what it was to tell.
    """
    log.warning("%s: %s", title, body)
    if not urls:
        return True
    import apprise

    sender = apprise.Apprise()
    accepted = [sender.add(url) for url in urls]
    if not all(accepted):
        log.error("%d of %d addresses in KEEPTAKE_NOTIFY_URLS are not Apprise addresses", accepted.count(False), len(urls))
    return all(accepted) and bool(sender.notify(title=title, body=body))
