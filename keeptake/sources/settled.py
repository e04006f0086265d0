"""Is a file finished? What tells a file that somebody still writes from one that lies there.

Belongs here: sizes and times of files that arrive. Does not: what the files hold.
"""

import logging
from pathlib import Path
from time import time

from keeptake.json_values import JSON

_log = logging.getLogger(__name__)
SETTLE_S = 3.0  # without a write; a copy that stalls for longer is taken as it is, and its rest as another file


def is_settled(path: Path, settle_s: float) -> bool:
    """Whether nobody wrote to a file for a while; a time in the future is a wrong clock, not a writer."""
    try:
        return abs(time() - path.stat().st_mtime) >= settle_s
    except OSError:  # gone meanwhile
        return False


def state_of(path: Path) -> JSON | None:
    """Size and time of a file, equal as long as nobody changed it; None where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns]


def is_readable(path: Path) -> bool:
    """Whether a file opens: one that does not is no news, or runs would be asked for without end."""
    try:
        path.open("rb").close()
    except OSError as failure:
        _log.warning("%s cannot be opened (%s): let this user read it, or take it away", path, failure.strerror)
        return False
    return True
