"""Where heavy per-audio work runs, as Dagster sees it."""

from collections.abc import Callable

import dagster as dg

from keeptake.compute import Pool
from keeptake.settings import settings
from keeptake.stage import Limits


class ComputeResource(dg.ConfigurableResource[Pool]):
    """Processes on this machine's cores, and what one run and one file may take."""

    workers: int = 0

    def pool(self, initializer: Callable[[], None]) -> Pool:
        """A pool whose workers are prepared by `initializer`; its processes start with the work."""
        return Pool(self.workers or settings().workers, initializer=initializer)

    def limits(self) -> Limits:
        """The configured limits."""
        chosen = settings()
        return Limits(chosen.run_budget_s, chosen.chunk_rows, chosen.analysis_timeout_s, chosen.analysis_memory_mb)
