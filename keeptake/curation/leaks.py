"""Does anything stand on both sides? The last look at a version's rows before it becomes visible.

Conventions: a leak is evidence that two rows of different splits are the same audio, share a part, sound alike, or were asked for
alike. The look is independent of how groups were made: it takes the finished rows, and the evidence, and joins them. Belongs
here: the check. Does not: preventing leaks (`splits.py`), finding duplicates (`duplicates.py`).
"""

from collections.abc import Mapping

import numpy as np
import polars as pl

from keeptake.embedding.near_pairs import near_pairs

LEAK = {"kind": pl.String, "first": pl.String, "second": pl.String, "splits": pl.String}
# Of scaled vectors; on 141 labelled files unrelated music came to 0.51 at most, siblings to 0.51 (decision 0062).
MIN_COSINE = 0.95
PAIR = {"first_sha256": pl.String, "second_sha256": pl.String}


def find_leaks(
    rows: pl.DataFrame,
    pairs: pl.DataFrame,
    *,
    excerpts: pl.DataFrame,
    prompt_keys: pl.DataFrame,
    hold_out_users: bool = False,
    vectors: Mapping[str, np.ndarray] | None = None,
) -> pl.DataFrame:
    """Find rows of different splits that are related.

    Parameters
    ----------
    rows : pl.DataFrame
        A version's rows: `id, split, generation_id, audio_sha256, user`.
    pairs : pl.DataFrame
        Duplicate audio files: `first_sha256, second_sha256`.
    excerpts : pl.DataFrame
        Audio files that share a part, in the same columns.
    prompt_keys : pl.DataFrame
        `generation_id, prompt_key`: the normalised prompts.
    hold_out_users : bool
        Whether one user on both sides is a leak.
    vectors : Mapping, optional
        Audio hash → embedding, all of one model.

    Returns
    -------
    pl.DataFrame
        `kind` (exact, fingerprint, excerpt, embedding, prompt, user), `first` and `second` (row ids), `splits`; sorted.
    """
    known = rows.select("id", "split", "generation_id", "audio_sha256", "user")
    prompted = known.join(prompt_keys, on="generation_id", how="left")
    found = [
        _sharing(known, "audio_sha256", "exact"),
        _sharing(prompted, "prompt_key", "prompt"),
        _paired(known, pairs, "fingerprint"),
        _paired(known, excerpts, "excerpt"),
    ]
    if hold_out_users:
        found.append(_sharing(known, "user", "user"))
    if vectors:
        present = set(known["audio_sha256"])
        found.append(_paired(known, alike({name: each for name, each in vectors.items() if name in present}), "embedding"))
    return pl.concat(found).unique().sort("kind", "first", "second")


def alike(vectors: Mapping[str, np.ndarray], *, least: float = MIN_COSINE) -> pl.DataFrame:
    """All pairs of audio files whose vectors point the same way: `first_sha256, second_sha256`, the first the lesser."""
    names = np.array(sorted(vectors))
    pairs = near_pairs(np.stack([vectors[name] for name in names]), least=least) if len(names) else np.zeros((0, 2), np.int64)
    return pl.DataFrame({"first_sha256": names[pairs[:, 0]], "second_sha256": names[pairs[:, 1]]}, schema=PAIR)


def _sharing(rows: pl.DataFrame, column: str, kind: str) -> pl.DataFrame:
    """Rows of different splits with one value: one example for each value and pair of splits, as there may be thousands."""
    told = rows.drop_nulls(column).sort("id").group_by(column, "split", maintain_order=True).agg(pl.col("id").first())
    return _named(told.join(told, on=column, suffix="_other"), kind)


def _paired(rows: pl.DataFrame, pairs: pl.DataFrame, kind: str) -> pl.DataFrame:
    told = rows.select("id", "split", "audio_sha256").sort("id").unique(["audio_sha256", "split"], keep="first")
    first = pairs.join(told, left_on="first_sha256", right_on="audio_sha256")
    return _named(first.join(told, left_on="second_sha256", right_on="audio_sha256", suffix="_other"), kind)


def _named(both: pl.DataFrame, kind: str) -> pl.DataFrame:
    apart = both.filter(pl.col("split") != pl.col("split_other"))
    ordered = pl.concat_list("id", "id_other").list.sort()
    splits = pl.concat_list("split", "split_other").list.sort().list.join(" and ")
    return apart.select(kind=pl.lit(kind), first=ordered.list.first(), second=ordered.list.last(), splits=splits).cast(LEAK)  # type: ignore[arg-type]  # a mapping of names to types
