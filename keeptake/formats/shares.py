"""How large did each split become? Its share of clips and minutes beside what was asked for.

Conventions: shares are in [0, 1]. A policy's shares are of groups, and a group is whole in one split: one long take, cut into
many clips, or many takes of one prompt, can turn a small dataset over.

Belongs here: counting, and what is too far off. Does not: giving groups their splits (`curation/splits.py`).
"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from keeptake.formats.sidecars import SPLITS

TOLERANCE = 0.15  # what a hash gives varies: of 100 equal groups a share of 0.8 deviates by 0.04, of 30 by 0.07 (binomial)
MIN_CLIPS = 30  # below this one group more or less is a share of its own


def asked_shares(splits: Mapping[str, Any]) -> dict[str, float]:
    """Share that each split should have, from a policy's `splits`."""
    return {"train": 1 - splits["valid"] - splits["test"], "valid": splits["valid"], "test": splits["test"]}


def split_shares(rows: pl.DataFrame, splits: Mapping[str, Any]) -> pl.DataFrame:
    """Count a version's splits.

    Parameters
    ----------
    rows : pl.DataFrame
        A version's rows: `split, parent, duration_s`.
    splits : mapping
        The policy's section, as its lineage holds it.

    Returns
    -------
    pl.DataFrame
        `split, clips, takes, minutes`, and the shares `asked, of_clips, of_minutes`; a row for each of `SPLITS`.
    """
    counted = [rows.filter(pl.col("split") == split) for split in SPLITS]
    table = pl.DataFrame(
        {
            "split": SPLITS,
            "clips": [part.height for part in counted],
            "takes": [part["parent"].n_unique() for part in counted],
            "minutes": [part["duration_s"].sum() / 60 for part in counted],
            "asked": [asked_shares(splits)[split] for split in SPLITS],
        }
    )
    return table.with_columns(
        of_clips=pl.col("clips") / max(1, rows.height),
        of_minutes=pl.col("minutes") / pl.col("minutes").sum().clip(lower_bound=1e-9),
    )


def unlike_asked(rows: pl.DataFrame, splits: Mapping[str, Any]) -> list[str]:
    """Say of each split whose share of clips or minutes is further than `TOLERANCE` from what was asked, or that is empty.

    Clips of the policy's `test_providers` are passed over, which go to test however many they are; of fewer than `MIN_CLIPS`
    others nothing is said.

    Parameters
    ----------
    rows : pl.DataFrame
        A version's rows: `split, parent, duration_s, provider`.
    splits : mapping
        The policy's section, as its lineage holds it.
    """
    free = rows.filter(~pl.col("provider").str.to_lowercase().is_in(list(splits["test_providers"])))
    if free.height < MIN_CLIPS:
        return []
    return [
        f"{split} was asked to hold {asked:.0%} and holds {of_clips:.0%} of the clips, {of_minutes:.0%} of the minutes"
        for split, asked, of_clips, of_minutes in split_shares(free, splits)
        .select("split", "asked", "of_clips", "of_minutes")
        .iter_rows()
        if max(abs(of_clips - asked), abs(of_minutes - asked)) > TOLERANCE or (asked and not of_clips)
    ]
