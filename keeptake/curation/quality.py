"""How good is a take? Named formulas over what was heard and what people said, as Polars expressions.

Conventions: every term is weighted and stored beside its total; totals lie in [0, 1]; a take without an analysis has no score. A
formula is never changed: a better one gets a new name. Belongs here: the formulas. Does not: which takes lag
(`ledger/scores.py`), which formula a policy reads (`policy.py`).

`seed_v1` is the original formula, completed with the two terms that it names but does not weigh. It has known flaws: two stars
raise a weak take, a dislike changes nothing. `v2` adds people's reactions to the analysis as evidence in log-odds, so that a
better rating never lowers a score, a dislike always does, and silence says nothing.
"""

from collections.abc import Mapping

import polars as pl

HEARD = ("rhythm_confidence", "tempo_stability", "no_clipping", "dynamic_range")
SAID: Mapping[str, pl.DataType] = {"liked": pl.Boolean(), "rating": pl.Int16(), "used": pl.Boolean()}

SEED_V1_WEIGHTS = {"rhythm_confidence": 0.2, "tempo_stability": 0.1, "no_clipping": 0.1, "dynamic_range": 0.1}
SEED_V1_LIKED = 0.2
SEED_V1_USED = 0.3

# In log-odds: +1 turns an even chance into 73 %. A dislike outweighs a like because people skip what is merely fair.
V2_STAR = 0.75  # a star above or below three
V2_LIKED = 1.0
V2_DISLIKED = -2.0
V2_USED = 1.5
V2_FLOOR = 0.02  # the analysis alone is never certain: its share of the most is held in [0.02, 0.98]

FORMULAS = ("seed_v1", "v2")
PRINCIPAL = "seed_v1"  # what `quality_score` means
FORMULAS_VERSION = "+".join(FORMULAS)

_DECIMALS = 6  # a total is compared with thresholds such as 0.7: sums of tenths must not miss them by a rounding error


def _heard(term: str) -> pl.Expr:
    return pl.col(term).cast(pl.Float64).fill_nan(None).fill_null(0.0).clip(0.0, 1.0)


def seed_v1_terms() -> dict[str, pl.Expr]:
    """Weighted terms of `seed_v1`; `rating` is what the rating moves the sum of the others by."""
    terms = {term: weight * _heard(term) for term, weight in SEED_V1_WEIGHTS.items()}
    terms["liked"] = pl.when(pl.col("liked")).then(SEED_V1_LIKED).otherwise(0.0)
    terms["used"] = pl.when(pl.col("used")).then(SEED_V1_USED).otherwise(0.0)
    score = pl.sum_horizontal(terms.values())
    averaged = (score + pl.col("rating") / 5) / 2
    return terms | {"rating": (averaged - score).fill_null(0.0)}


def seed_v1() -> pl.Expr:
    """Total of `seed_v1`: the original's `quality_score`, in [0, 1]."""
    return pl.sum_horizontal(seed_v1_terms().values()).clip(0.0, 1.0).round(_DECIMALS)


def v2_terms() -> dict[str, pl.Expr]:
    """Terms of `v2` in log-odds: the analysis, then each reaction as evidence."""
    most = sum(SEED_V1_WEIGHTS.values())
    share = pl.sum_horizontal(weight * _heard(term) for term, weight in SEED_V1_WEIGHTS.items()) / most
    share = share.clip(V2_FLOOR, 1 - V2_FLOOR)
    return {
        "analysis": (share / (1 - share)).log(),
        "rating": (V2_STAR * (pl.col("rating").cast(pl.Float64) - 3)).fill_null(0.0),
        "liked": pl.when(pl.col("liked")).then(V2_LIKED).when(pl.col("liked").not_()).then(V2_DISLIKED).otherwise(0.0),
        "used": pl.when(pl.col("used")).then(V2_USED).otherwise(0.0),
    }


def v2() -> pl.Expr:
    """Total of `v2`, in (0, 1)."""
    odds = pl.sum_horizontal(v2_terms().values())
    return (1 / (1 + (-odds).exp())).round(_DECIMALS)


def _struct(terms: Mapping[str, pl.Expr]) -> pl.Expr:
    return pl.struct([term.alias(name) for name, term in terms.items()])


def score(takes: pl.DataFrame) -> pl.DataFrame:
    """Score takes by every formula.

    Parameters
    ----------
    takes : pl.DataFrame
        A row a take, with the columns of `HEARD` (floats in [0, 1] or null) and of `SAID`.

    Returns
    -------
    pl.DataFrame
        `takes` with a column a formula and a column `FORMULA_terms` (struct of floats) a formula.
    """
    typed = takes.with_columns([pl.col(name).cast(kind) for name, kind in SAID.items()])
    return typed.with_columns(
        seed_v1().alias("seed_v1"),
        _struct(seed_v1_terms()).alias("seed_v1_terms"),
        v2().alias("v2"),
        _struct(v2_terms()).alias("v2_terms"),
    )
