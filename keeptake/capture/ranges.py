"""One range of a body's bytes, as RFC 9110 has it. Belongs here: reading the headers. Does not: sending bytes."""

import re
import sys

from keeptake.capture.problems import Problem

_RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)", re.IGNORECASE)
_MOST_DIGITS = 18  # of a number that is read as such


def byte_range(header: str | None, size_bytes: int, *, if_range: str | None = None, etag: str = "") -> tuple[int, int, bool]:
    """First and last byte to send, and whether that is a part; more than one range is answered with the whole.

    Parameters
    ----------
    header : str or None
        `Range` as it was sent.
    size_bytes : int
        Of the whole.
    if_range : str, optional
        `If-Range` as it was sent: a part is sent of the state that it names, and the whole of any other. A weak tag and a
        date name none.
    etag : str
        Strong tag of the state as it is.

    Raises
    ------
    Problem
        416, where the range lies outside.
    """
    found = _RANGE.fullmatch(header or "")
    is_other = if_range is not None and if_range.strip() != etag
    if found is None or not any(found.groups()) or is_other:
        return 0, size_bytes - 1, False
    first, last = found.groups()
    start = _number(first) if first else max(size_bytes - _number(last), 0)
    end = min(_number(last), size_bytes - 1) if first and last else size_bytes - 1
    if start > end:  # so of the last 0 bytes
        asks = f"ask for bytes=0-{size_bytes - 1} or a part of it" if size_bytes else "ask without Range"
        headers = {"Content-Range": f"bytes */{size_bytes}"}
        raise Problem(416, "range-not-satisfiable", f"there are {size_bytes} bytes: {asks}", headers=headers)
    return start, end, True


def _number(digits: str) -> int:
    significant = digits.lstrip("0")
    return int(significant or "0") if len(significant) <= _MOST_DIGITS else sys.maxsize
