"""How long does a server ask us to wait? `Retry-After`, for whoever sends requests.

Belongs here: reading that header. Does not: whether and how often to ask again, which is each caller's.
"""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def retry_after_s(value: str, now: datetime | None = None) -> float | None:
    """Seconds that a `Retry-After` asks for, at least 0; None where it says nothing that can be read.

    Parameters
    ----------
    value : str
        A number of seconds, or a date with a zone (RFC 9110, section 10.2.3).
    now : datetime, optional
        With a zone; the present where None.

    >>> retry_after_s("120"), retry_after_s("soon")
    (120.0, None)
    """
    text = value.strip()
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    try:
        wait_s = (parsedate_to_datetime(text) - (now or datetime.now(UTC))).total_seconds()
    except (ValueError, TypeError, OverflowError):  # no date, one without a zone, one beyond all calendars
        return None
    return max(0.0, wait_s)
