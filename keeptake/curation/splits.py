"""Train, valid or test? A stable hash of the group decides, and what was published decides before it.

Conventions: the split belongs to the group, never to the row. A group is named after its earliest take (least ledger id), whether
that one passes the policy or not, so that takes that arrive later move nothing and policies of equal shares agree; the digits of
that name are a SHA-256 and serve as the hash. What a take was published in before, it keeps for ever: `previous` holds every
published row of all versions, those that no longer pass included.

Belongs here: groups to splits, and who must leave where evidence joins splits. Does not: finding groups (`groups.py`).
"""

import numpy as np
import polars as pl

from keeptake.curation.groups import NO_SPLIT, anchors, components, contradicted, separate
from keeptake.curation.policy import Splits
from keeptake.errors import LeftOutReason

RANKED = ("test", "valid", "train")  # in the order of who stays where two of them turn out to be related
CODE = {split: code for code, split in enumerate(RANKED, start=1)}
PREVIOUS = {
    "generation": pl.Int64,
    "file_id": pl.String,
    "audio_sha256": pl.String,
    "prompt_key": pl.String,
    "user_id": pl.String,
    "provider": pl.String,
    "split": pl.String,
}


def hashed_split(group_id: pl.Expr, shares: Splits) -> pl.Expr:
    """Split of a group by the last eight hex digits of its name (the first ones break ties elsewhere)."""
    place = group_id.str.slice(8, 8).str.to_integer(base=16, dtype=pl.Int64) / 2**32
    split = pl.when(place < shares.test).then(pl.lit("test")).when(place < shares.test + shares.valid).then(pl.lit("valid"))
    return split.otherwise(pl.lit("train"))


def hubs(shares: Splits) -> list[str]:
    """Columns whose equal values keep takes together."""
    return ["audio_sha256", "prompt_key", *(["user_id"] if shares.hold_out_users else [])]


def assign(
    takes: pl.DataFrame, pairs: pl.DataFrame, previous: pl.DataFrame, shares: Splits, *, others: pl.DataFrame
) -> pl.DataFrame:
    """Give every take its group and split, or the reason why it must stay away.

    Parameters
    ----------
    takes : pl.DataFrame
        Takes that pass the policy's own rules, with the columns of `PREVIOUS` but `split`.
    pairs : pl.DataFrame
        Audio files that hold the same sound, whole or in part: `first_sha256`, `second_sha256`.
    previous : pl.DataFrame
        All rows ever published under this name, columns as in `PREVIOUS`.
    shares : Splits
        The policy's section.
    others : pl.DataFrame
        Takes of the ledger that do not pass, columns as of `takes`: they tie and name groups, and are given no split.

    Returns
    -------
    pl.DataFrame
        `generation`, `group_id`, `split`, `reason`, `detail`, a row for each of `takes`; `reason` is null where it may be
        published, else `leaks-into-test` (it was, elsewhere) or `bridges-splits`.
    """
    nodes = _nodes(takes, previous, others, shares)
    links = hubs(shares)
    labels = components(nodes, pairs, links).astype(np.int64)
    fixed = nodes["fixed"].to_numpy()
    walked = contradicted(labels, fixed).nonzero()[0]
    refused = np.zeros(nodes.height, np.bool_)
    if walked.size:
        # Published rows before new ones, test before train: the later of two that contradict each other leaves.
        order = walked[np.lexsort((walked, fixed[walked], nodes["is_published"].not_().to_numpy()[walked]))]
        order = order[np.argsort(fixed[order] == NO_SPLIT, kind="stable")]
        order = order[np.argsort(nodes["is_other"].to_numpy()[order], kind="stable")]  # these must drive nobody out
        rows = nodes[order].select(links).to_dicts()
        parts, left = separate(rows, fixed[order].tolist(), pairs, links)
        refused[order[left]] = True
        fresh = labels.max() + 1  # parts and lone rows get numbers that no component has
        labels[order] = fresh + np.where(refused[order], nodes.height + np.arange(order.size), parts)
        labels = np.unique(labels, return_inverse=True)[1]
    nodes = nodes.with_columns(
        pl.Series("label", labels), pl.Series("refused", refused), group_id=nodes["file_id"].gather(anchors(labels))
    )
    held = nodes.filter((pl.col("fixed") != NO_SPLIT) & ~pl.col("refused")).group_by("label").agg(pl.col("fixed").first())
    named = held.select(
        "label", held_split=pl.col("fixed").replace_strict({c: s for s, c in CODE.items()}, return_dtype=pl.String)
    )
    nodes = nodes.filter(pl.col("is_take")).join(named, on="label", how="left", maintain_order="left")
    reason = pl.when(~pl.col("refused")).then(None)
    leaks, bridges = pl.lit(LeftOutReason.LEAKS_INTO_TEST.value), pl.lit(LeftOutReason.BRIDGES_SPLITS.value)
    return nodes.select(
        "generation",
        "group_id",
        split=pl.coalesce("held_split", hashed_split(pl.col("group_id"), shares)),
        reason=reason.when(pl.col("is_published")).then(leaks).otherwise(bridges),
        detail=reason.when(pl.col("is_published"))
        .then(pl.lit("published before; its audio, prompt or user turned out to stand in another split"))
        .otherwise(pl.lit("its audio, prompt or user would join groups of different splits")),
    )


def _nodes(takes: pl.DataFrame, previous: pl.DataFrame, others: pl.DataFrame, shares: Splits) -> pl.DataFrame:
    """Takes, and those that do not pass, in ledger order, with the code of the split that each must keep."""
    columns = [name for name in PREVIOUS if name != "split"]
    codes = pl.col("split").replace_strict(CODE, return_dtype=pl.Int8)
    # A take that stood in several splits (it cannot, unless by hand) counts for the one that protects test.
    published = previous.with_columns(codes.alias("published")).sort("published").unique("generation", keep="first")
    gone = published.join(takes.select("generation"), on="generation", how="anti")
    nodes = pl.concat(
        [
            takes.select(columns)
            .join(published.select("generation", "published"), on="generation", how="left")
            .with_columns(is_take=pl.lit(True)),
            gone.select(*columns, "published", is_take=pl.lit(False)),
            others.select(columns)
            .join(published.select("generation"), on="generation", how="anti")
            .with_columns(published=pl.lit(None, pl.Int8), is_take=pl.lit(False)),
        ]
    ).sort("generation")
    held_out = pl.col("provider").str.to_lowercase().is_in(list(shares.test_providers)) & pl.col("is_take")
    return nodes.with_columns(
        is_published=pl.col("published").is_not_null(),
        is_other=~pl.col("is_take") & pl.col("published").is_null(),
        fixed=pl.when(held_out & pl.col("published").is_null())
        .then(pl.lit(CODE["test"], pl.Int8))
        .otherwise(pl.col("published").fill_null(NO_SPLIT)),
    )
