"""Which takes enter the dataset, and what speaks first against the others? Rules as Polars expressions, in one order.

Conventions: a rule is a name and an expression that is true where a take fails; the first that fails is the take's reason. A null
never passes a rule that needs the value, except adherence that nobody could judge. After the rules come, in this order:
`duplicate`, `leaks-into-test` and `bridges-splits`, `genre-cap`, `size`.

Belongs here: the rules and their order. Does not: reading candidates (`keeptake/ledger/datasets.py`), files (`building.py`).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl

from keeptake.curation.balance import cut
from keeptake.curation.groups import components
from keeptake.curation.policy import Policy
from keeptake.curation.splits import PREVIOUS, assign
from keeptake.errors import LeftOutReason

CANDIDATE = {
    "generation": pl.Int64,
    "generation_id": pl.String,
    "file_id": pl.String,
    "user_id": pl.String,
    "provider": pl.String,
    "prompt_key": pl.String,
    "genre": pl.String,
    "audio_sha256": pl.String,
    "audio_reason": pl.String,
    "duration_s": pl.Float64,
    "is_heard": pl.Boolean,
    "has_vocals": pl.Boolean,
    "has_clipping": pl.Boolean,
    "is_silent": pl.Boolean,
    "has_dc_offset": pl.Boolean,
    "is_antiphase": pl.Boolean,
    "is_one_sided": pl.Boolean,
    "has_abrupt_start": pl.Boolean,
    "has_abrupt_end": pl.Boolean,
    "score": pl.Float64,
    "adherence": pl.Float64,
    "liked": pl.Boolean,
    "rating": pl.Int16,
    "used": pl.Boolean,
    "has_consent": pl.Boolean,
    "is_erased": pl.Boolean,
}
"""Columns that choosing reads, and their types."""
PAIRS = {"first_sha256": pl.String, "second_sha256": pl.String}
UNKNOWN_GENRE = "unknown"
GOOD_RATING = 4


class Rule(NamedTuple):
    """A named reason, where it holds, and what a person should read."""

    name: str
    fails: pl.Expr
    detail: pl.Expr


@dataclass(frozen=True)
class Selection:
    """What a policy says of every take.

    Attributes
    ----------
    kept : pl.DataFrame
        The candidates' columns with `split` and `group_id`, in ledger order.
    left_out : pl.DataFrame
        `generation`, `generation_id`, `reason`, `detail`, in ledger order.
    """

    kept: pl.DataFrame
    left_out: pl.DataFrame

    def reasons(self) -> dict[str, int]:
        """Takes left out, by reason, the commonest first."""
        counted = self.left_out.group_by("reason").len().sort("len", "reason", descending=[True, False])
        return dict(counted.iter_rows())


def rules(policy: Policy) -> list[Rule]:
    """Rules of a policy on a single take, in the order in which they are asked."""
    select, audio, licences = policy.select, policy.audio, policy.licences
    longest_s = min(select.max_duration_s, audio.max_clip_s if audio.cut == "none" else select.max_duration_s)
    consent, score, duration = pl.col("has_consent"), pl.col("score"), pl.col("duration_s")
    provider = pl.col("provider").str.to_lowercase()
    allowed = provider.is_in(list(select.providers)) if select.providers else pl.lit(True)
    licensed = provider.is_in(list(licences.by_provider)) if licences.is_required else pl.lit(True)
    wrong_vocals = {
        "any": pl.lit(False),
        "without": pl.col("has_vocals").fill_null(True),
        "with": ~pl.col("has_vocals").fill_null(False),
    }[select.vocals]
    defects = [pl.col(name).fill_null(False) for name in select.defects]
    named_defects = [pl.when(pl.col(name)).then(pl.lit(name)) for name in select.defects]
    adherence = pl.col("adherence")
    return [
        Rule(LeftOutReason.ERASED, pl.col("is_erased"), pl.lit("erased at the user's request")),
        Rule(
            LeftOutReason.NO_CONSENT,
            ~consent.fill_null(select.consent == "not-refused"),
            pl.lit(f"the policy asks for consent that is {select.consent}"),
        ),
        Rule(
            "not-decoded",
            pl.col("audio_sha256").is_null(),
            pl.format("audio: {}", pl.col("audio_reason").fill_null("not here yet")),
        ),
        Rule("not-heard", ~pl.col("is_heard").fill_null(False) | duration.is_null(), pl.lit("no analysis yet")),
        Rule("provider", ~allowed | provider.is_in(list(select.blocked_providers)), pl.format("{}", "provider")),
        Rule("licence", ~licensed, pl.format("no licence is stated for {}", "provider")),
        Rule("too-short", duration < max(select.min_duration_s, audio.min_clip_s), pl.format("{} s", duration.round(3))),
        Rule("too-long", duration > longest_s, pl.format("{} s, at most {}", duration.round(3), pl.lit(longest_s))),
        Rule("vocals", wrong_vocals, pl.lit(f"the policy wants takes {select.vocals} a voice")),
        Rule(
            "defect",
            pl.any_horizontal(defects) if defects else pl.lit(False),
            pl.concat_str(named_defects, separator=", ", ignore_nulls=True) if defects else pl.lit(""),
        ),
        Rule("disliked", ~pl.col("liked").fill_null(True) & pl.lit(select.exclude_disliked), pl.lit("disliked by its user")),
        Rule("not-scored", score.is_null(), pl.lit(f"no score by {select.formula} yet")),
        Rule("low-score", score < select.min_score, pl.format("{} is below {}", score.round(4), pl.lit(select.min_score))),
        Rule(
            "low-adherence",
            (adherence < (select.min_adherence or 0.0)).fill_null(False),
            pl.format("{} is below {}", adherence.round(4), pl.lit(select.min_adherence or 0.0)),
        ),
    ]


def choose(
    candidates: pl.DataFrame,
    policy: Policy,
    *,
    pairs: pl.DataFrame | None = None,
    excerpts: pl.DataFrame | None = None,
    previous: pl.DataFrame | None = None,
) -> Selection:
    """Choose the takes of a dataset.

    Parameters
    ----------
    candidates : pl.DataFrame
        A row a take, with the columns of `CANDIDATE`; further ones are carried along.
    policy : Policy
        What to choose by.
    pairs : pl.DataFrame, optional
        Audio files that are duplicates of each other, columns as in `PAIRS`: all but one of them are left out.
    excerpts : pl.DataFrame, optional
        Audio files that share a part, columns as in `PAIRS`: all may stay, in one split.
    previous : pl.DataFrame, optional
        Every row ever published under this name, columns as in `splits.PREVIOUS`.

    Returns
    -------
    Selection
        Every candidate once: kept, or left out with the first reason.
    """
    pairs = pl.DataFrame(schema=PAIRS) if pairs is None else pairs
    excerpts = pl.DataFrame(schema=PAIRS) if excerpts is None else excerpts
    previous = pl.DataFrame(schema=PREVIOUS) if previous is None else previous
    takes = candidates if candidates["generation"].is_sorted() else candidates.sort("generation")
    takes = takes.with_columns(genre=pl.col("genre").fill_null(UNKNOWN_GENRE))
    asked = rules(policy)
    failing = takes.select(pl.coalesce([pl.when(rule.fails).then(at) for at, rule in enumerate(asked)])).to_series()
    passing = _passing(takes, failing.is_null(), previous, policy)
    others = takes.filter(failing.is_not_null())
    assigned = assign(passing, pl.concat([pairs, excerpts]), previous, policy.splits, others=others).drop("generation")
    judged = _without_duplicates(pl.concat([passing, assigned], how="horizontal"), pairs)
    admitted = judged.filter(pl.col("reason").is_null())
    order = admitted["rank"].arg_sort()
    sized = cut(admitted.select("generation", "generation_id", "genre", "is_kept_first")[order], policy.balance)
    columns = ("generation", "generation_id", "reason", "detail")
    refused = [frame.filter(pl.col("reason").is_not_null()).select(columns) for frame in (judged, sized)]
    left_out = pl.concat([_told(takes, failing, asked), *refused]).sort("generation")
    kept = sized.filter(pl.col("reason").is_null()).select("generation").sort("generation")
    placed = kept.join(judged.select("generation", "split", "group_id"), on="generation", maintain_order="left")
    return Selection(takes.join(placed, on="generation", maintain_order="left"), left_out)


def _told(takes: pl.DataFrame, failing: pl.Series, asked: list[Rule]) -> pl.DataFrame:
    """Takes that failed a rule, with its name and what a person should read."""
    parts = [
        takes.lazy()
        .filter(failing == at)
        .select("generation", "generation_id", reason=pl.lit(str(rule.name)), detail=rule.detail.cast(pl.String))
        for at, rule in enumerate(asked)
    ]
    return pl.concat(parts).collect()


def _passing(takes: pl.DataFrame, passes: pl.Series, previous: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    """Takes that pass every rule, with the few columns that groups and quotas need, and their rank: the least comes first."""
    tested = previous.filter(pl.col("split") == "test").select("generation", is_kept_first=pl.lit(True)).unique("generation")
    columns = [name for name in PREVIOUS if name != "split"]
    praise = [pl.col("liked"), pl.col("used"), pl.col("rating") >= GOOD_RATING]
    is_praised = pl.any_horizontal([said.fill_null(False) for said in praise]) & pl.lit(policy.balance.is_feedback_first)
    passing = takes.lazy().filter(passes).select(*columns, "generation_id", "genre", "score", is_praised=is_praised).collect()
    passing = passing.join(tested, on="generation", how="left", maintain_order="left")
    passing = passing.with_columns(pl.col("is_kept_first").fill_null(False))
    # One integer to sort by: rows of the test split, then praised ones, then the score to 6 decimals, then a stable hash.
    hashed = pl.col("file_id").str.slice(0, 10).str.to_integer(base=16, dtype=pl.Int64)
    falling = ((1 - pl.col("score")) * 10**6).round().cast(pl.Int64)
    classes = (~pl.col("is_kept_first")).cast(pl.Int64) * 2 + (~pl.col("is_praised")).cast(pl.Int64)
    ranked = passing.select(rank=classes * 2**61 + falling * 2**40 + hashed, merit=falling * 2**40 + hashed)
    return passing.drop("is_praised", "score").with_columns(ranked)


def _without_duplicates(takes: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """Name all but one of each set `duplicate`: a row of the test split stays, then the best score, then the least hash."""
    labels = components(takes, pairs, ["audio_sha256"])
    sizes = np.bincount(labels) if labels.size else np.zeros(0, np.int64)
    related = (sizes[labels] > 1).nonzero()[0]
    if not related.size:
        return takes
    alike = takes[related].select(
        "generation_id",
        label=labels[related],
        is_refused=pl.col("reason").is_not_null(),
        last=~pl.col("is_kept_first"),
        merit="merit",
    )
    keepers = alike.sort("is_refused", "last", "merit").unique("label", keep="first", maintain_order=True)
    told = alike.join(keepers.select("label", keeper="generation_id"), on="label").filter(
        pl.col("generation_id") != pl.col("keeper")
    )
    named = told.filter(~pl.col("is_refused")).select(
        "generation_id", twin=pl.lit(LeftOutReason.DUPLICATE.value), of=pl.format("the same audio as {}", "keeper")
    )
    return (
        takes.join(named, on="generation_id", how="left", maintain_order="left")
        .with_columns(reason=pl.coalesce("reason", "twin"), detail=pl.coalesce("detail", "of"))
        .drop("twin", "of")
    )
