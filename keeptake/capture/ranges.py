"""One range of a body's bytes, as RFC 9110 has it. Belongs here: reading the header. Does not: sending bytes."""

import re

from keeptake.capture.problems import Problem

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def byte_range(header: str | None, size_bytes: int) -> tuple[int, int, bool]:
    """First and last byte to send, and whether that is a part; more than one range is answered with the whole.

    Raises
    ------
    Problem
        416, where the range lies outside.
    """
    found = _RANGE.fullmatch(header or "")
    if found is None or not any(found.groups()):
        return 0, size_bytes - 1, False
    first, last = found.groups()
    start = int(first) if first else max(size_bytes - int(last), 0)
    end = min(int(last), size_bytes - 1) if first and last else size_bytes - 1
    if start > end or (not first and int(last) == 0):
        headers = {"Content-Range": f"bytes */{size_bytes}"}
        raise Problem(416, "range-not-satisfiable", f"there are {size_bytes} bytes", headers=headers)
    return start, end, True
