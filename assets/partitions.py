"""How the graph is cut: takes by the day of their capture, datasets by their policy."""

import dagster as dg

from keeptake.settings import settings

# The UTC day on which the ledger accepted a record: nothing can arrive late. Never a partition a generation.
capture_day = dg.DailyPartitionsDefinition(start_date="2025-01-01", timezone="UTC", end_offset=1)


def policy_names() -> list[str]:
    """Names of the policies: a TOML file each in the policies' folder."""
    return sorted(path.stem for path in settings().policies_dir.glob("*.toml"))
