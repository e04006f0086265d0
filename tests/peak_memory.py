"""How much more memory this process takes than now.

`ru_maxrss` cannot tell: it begins with the peak of the process that started this one, and never falls. Beside a test suite of
some hundred megabytes it stands still whatever happens.
"""

import re
from pathlib import Path


class PeakMemory:
    """Highest resident memory from here on, by Linux's own account."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        self._before_mb = _mb("VmRSS")

    def added_mb(self) -> float:
        """Highest so far, over what there was at the beginning."""
        return _mb("VmHWM") - self._before_mb


def _mb(name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024
