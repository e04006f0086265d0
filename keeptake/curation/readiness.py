"""Is there enough for a first fine-tuning, and of what is there too little: counted against the policy's goal.

Belongs here: the arithmetic of the goal. Does not: choosing takes (`select.py`), warning somebody (the graph's checks).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from keeptake.curation.policy import Policy


class Readiness(NamedTuple):
    """How far a dataset has come.

    Attributes
    ----------
    takes, wanted : int
    by_genre : list of dict
        `genre`, `takes`, `share` of all takes, `room`: how many more of it the goal could hold under the policy's cap; the
        scarcest last.
    """

    takes: int
    wanted: int
    by_genre: list[dict[str, Any]]

    @property
    def is_ready(self) -> bool:
        """Whether the goal is reached."""
        return self.takes >= self.wanted

    def sentence(self) -> str:
        """Say it to a person."""
        far = f"{self.takes:,} of {self.wanted:,} takes"
        scarce = ", ".join(f"{row['genre']} {row['takes']:,}" for row in self.by_genre[-3:])
        return f"ready: {far}" if self.is_ready else f"not ready: {far}" + (f"; scarcest: {scarce}" if scarce else "")


def readiness(kept: Mapping[str, int], policy: Policy) -> Readiness:
    """Hold the takes that a policy keeps, by genre, against its goal."""
    takes, wanted = sum(kept.values()), policy.readiness.takes
    most = max(policy.balance.genre_cap, 1 / max(len(kept), 1)) * wanted
    ranked = sorted(kept.items(), key=lambda item: (-item[1], item[0]))
    rows = [{"genre": genre, "takes": n, "share": round(n / takes, 4), "room": max(0, int(most) - n)} for genre, n in ranked if n]
    return Readiness(takes, wanted, rows)
