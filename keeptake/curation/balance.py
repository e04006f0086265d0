"""How many of what? Genre quotas by share, then the size of the dataset.

Conventions: takes come in the order of preference; shares are of the finished dataset. Belongs here: quotas and cuts. Does not:
whether a take is good enough (`select.py`).
"""

import polars as pl

from keeptake.curation.policy import Balance


def capped(counts: dict[str, int], cap: float) -> dict[str, int]:
    """Most takes of each genre so that none holds more than `cap` of them all, and as many remain as possible.

    With too few genres for the cap (two of them and a cap of 0.25) an equal share is what each may have.

    >>> capped({"trap": 90, "lofi": 20, "jazz": 10}, 0.5)
    {'trap': 30, 'lofi': 20, 'jazz': 10}
    """
    if not counts or cap >= 1:
        return dict(counts)
    share = max(cap, 1 / len(counts))
    low, high = 1, max(counts.values())
    while low < high:
        level = (low + high + 1) // 2
        if level <= share * sum(min(count, level) for count in counts.values()) + 1e-9:
            low = level
        else:
            high = level - 1
    return {genre: min(count, low) for genre, count in counts.items()}


def cut(takes: pl.DataFrame, balance: Balance) -> pl.DataFrame:
    """Name the takes that do not fit.

    Parameters
    ----------
    takes : pl.DataFrame
        With `genre` and `is_kept_first` (bool: rows of a published test split), in the order of preference.
    balance : Balance
        The policy's section.

    Returns
    -------
    pl.DataFrame
        `takes` with `reason` and `detail`: null for those that fit, which come first, or `genre-cap` or `size`.
    """
    if takes.is_empty():
        return takes.with_columns(reason=pl.lit(None, pl.String), detail=pl.lit(None, pl.String))
    counts = dict(takes.group_by("genre").len().iter_rows())
    quotas = capped(counts, balance.genre_cap)
    most = balance.max_takes or takes.height
    share = max(balance.genre_cap, 1 / len(counts))
    if sum(quotas.values()) > most and share < 1:  # a genre that may hold it all is stopped by the size alone
        quotas = {genre: min(quota, max(1, int(share * most))) for genre, quota in quotas.items()}
    promised = int(balance.genre_floor * most) if balance.max_takes else 0
    ranked = takes.with_columns(
        in_genre=pl.int_range(1, pl.len() + 1).over("genre"),
        quota=pl.col("genre").replace_strict(quotas, return_dtype=pl.Int64),
    )
    fits = pl.col("in_genre") <= pl.col("quota")
    turn = pl.when(pl.col("is_kept_first")).then(0).when(pl.col("in_genre") <= promised).then(1).otherwise(2)
    placed = ranked.with_columns(fits=fits, place=pl.when(fits).then(turn).otherwise(3).rank("ordinal"))
    reason = pl.when(~pl.col("fits")).then(pl.lit("genre-cap")).when(pl.col("place") > most).then(pl.lit("size"))
    sizes = pl.col("genre").replace_strict(counts, return_dtype=pl.Int64)
    over_cap = pl.format("its genre {} has room for {} of {} takes", "genre", "quota", sizes)
    full = pl.lit(f"{most} better ones fill the dataset")
    told = placed.with_columns(reason=reason)
    kept = told.filter(pl.col("reason").is_null()).with_columns(detail=pl.lit(None, pl.String))
    left = told.filter(pl.col("reason").is_not_null())  # sentences are made for these alone: they cost more than the rest
    left = left.with_columns(detail=pl.when(~pl.col("fits")).then(over_cap).otherwise(full))
    return pl.concat([kept, left]).drop("in_genre", "quota", "fits", "place")
