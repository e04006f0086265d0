"""Which words of a prompt does a clip contradict? A trainer should not read "140 BPM" beside a sound of 90.

Conventions: tempo, key and vocals are looked at, as `prompts.py` reads them and `adherence.py` judges them; other words of a
prompt are nobody's to deny. What is taken out are whole clauses, between commas, semicolons, full stops or lines, so that what
is left reads as it was written.

Belongs here: which terms are contradicted, and the prompt without them. Does not: what was heard in words (`captions.py`).
"""

import re
from collections.abc import Collection

import polars as pl

from keeptake.curation.adherence import ASKED, CONTRADICTIONS, asked, judge
from keeptake.curation.prompts import parse_prompt

TERMS = ("tempo", "key", "vocals")
_GRANTED = ("exact", "as-asked")
_END = re.compile(r"([,;\n]|\.(?=\s|$))")


def contradicted(clips: pl.DataFrame, *, beside_caption: bool) -> list[set[str]]:
    """Terms of each clip's prompt that the clip does not bear out, or on which the prompt contradicts itself.

    Parameters
    ----------
    clips : pl.DataFrame
        `prompt`, and the columns of `adherence.HEARD` as they were heard in the clip; any of those may be missing.
    beside_caption : bool
        Whether a trainer reads what was heard too. Then a tempo counted at half or double, and a key that is only related, are
        taken out as well: one text must not name two.

    Returns
    -------
    list of set of str
        Any of `TERMS`, in the order of the clips.
    """
    wishes = [asked(None, prompt) for prompt in clips["prompt"]]
    judged = judge(clips.with_columns(pl.DataFrame(wishes, schema=ASKED)))
    found = []
    for row in judged.iter_rows(named=True):
        verdicts = {term: row[f"{term}_verdict"] for term in TERMS}
        denied = {
            term
            for term, verdict in verdicts.items()
            if verdict in CONTRADICTIONS or (beside_caption and verdict not in (None, *_GRANTED))
        }
        found.append(denied | set(row["conflicts"]))
    return found


def without(prompt: str, terms: Collection[str]) -> str:
    """Take out of a prompt the clauses that speak of the terms; empty where nothing else is left.

    >>> without("dark trap, 140 BPM, in F# minor, heavy 808s", {"tempo"})
    'dark trap, in F# minor, heavy 808s'
    >>> without("A slow song at 140 BPM with a choir. Warm.", {"tempo"})
    'Warm.'
    """
    if not terms:
        return prompt
    pieces = _END.split(prompt)
    clauses = zip(pieces[::2], [*pieces[1::2], ""], strict=True)
    rest = "".join(clause + end for clause, end in clauses if not _speaks_of(clause, terms)).strip(" ,;\n")
    return "" if _speaks_of(rest, terms) else rest


def _speaks_of(text: str, terms: Collection[str]) -> bool:
    wish = parse_prompt(text)
    said = {"tempo": wish.tempo_bpm, "key": wish.key, "vocals": wish.has_vocals}
    return any(said[term] is not None or term in wish.conflicts for term in terms)
