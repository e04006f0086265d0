"""How the graph is cut: takes by the day of their capture, datasets by their policy."""

from collections.abc import Iterable
from warnings import catch_warnings, simplefilter

import dagster as dg

from keeptake.curation.policy import policy_names
from keeptake.settings import settings

# The UTC day on which the ledger accepted a record: nothing can arrive late. Never a partition a generation.
capture_day = dg.DailyPartitionsDefinition(start_date="2025-01-01", timezone="UTC", end_offset=1)


def known_days(days: Iterable[str]) -> list[str]:
    """Those that are capture days, in their order: a folder of anybody's may have any name."""
    known = set(capture_day.get_partition_keys())
    return [day for day in days if day in known]


def policies() -> list[str]:
    """Names of the policies: a TOML file each in the policies' folder."""
    return policy_names(settings().policies_dir)


# As the folder was when this process began: Dagster asks for no run of a partition that the definition does not hold. The daemon
# begins one anew every minute, the UI at *Reload definitions*.
by_policy = dg.StaticPartitionsDefinition(policies())


def known_policies(names: Iterable[str]) -> list[str]:
    """Those whose datasets can be asked for, in their order: a policy that came later waits until definitions are loaded anew."""
    known = set(by_policy.get_partition_keys())
    return [name for name in names if name in known]


def check_of_each(
    partitions: dg.PartitionsDefinition[str], asset: str, name: str, description: str, *, blocking: bool = False
) -> dg.AssetCheckSpec:
    """A check that stands for each partition by itself: else one day's or dataset's failure goes under in another's pass."""
    with catch_warnings():  # a preview in Dagster 1.13
        simplefilter("ignore", dg.PreviewWarning)
        return dg.AssetCheckSpec(name, asset=asset, blocking=blocking, description=description, partitions_def=partitions)
