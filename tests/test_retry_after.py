"""What servers write into `Retry-After`, and what they should not."""

from datetime import UTC, datetime

import pytest

from keeptake.retry_after import retry_after_s

NOW = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        ("0", 0.0),
        (" 90 ", 90.0),
        ("9" * 40, 999_999_999.0),
        ("Fri, 01 May 2026 12:01:00 GMT", 60.0),
        ("Fri, 01 May 2026 14:00:30 +0200", 30.0),
        ("Fri, 01 May 2026 11:00:00 GMT", 0.0),  # it is over
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("²", None),  # a digit, and no number
        ("soon", None),
        ("Fri, 01 May 2026 12:01:00", None),  # without a zone
        ("Fri, 31 Dec 99999999999999 23:59:59 GMT", None),
        ("Fri, 31 Dec 2027 23:59:59 +999999999999999999999", None),
    ],
)
def test_seconds_dates_and_nonsense(value, wait_s):
    """Three readings of the header disagreed; one of them took a day's fetching down with a date beyond all calendars."""
    assert retry_after_s(value, NOW) == wait_s
