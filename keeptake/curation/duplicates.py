"""Which takes are copies of each other? Candidates from an index, each verified, then grouped.

A copy may be re-encoded, louder, trimmed, filtered, noisy, up to 4 % faster or slower, and transposed. It is a `duplicate` where
three fifths of the longer one or more are the same sound in both, and hold together; an `excerpt` where it is less: a medley
holds excerpts of many takes and must not make one group of them all. What agrees for a while as different takes with one
progression of chords do is `alike`, and no evidence of one recording.

How: takes that look alike around a shared key (`candidates.py`) are aligned as a whole (`_align`). Not every pair of a key that
many share is looked at; groups close what that leaves out.

Conventions: `b` begins `offset_s` seconds after `a` has (negative: before), `speed` is how much faster b plays, `rotation` how
many semitones b is above a. Belongs here: takes to pairs and groups. Does not: sound to code words (`audio/fingerprint.py`),
which of a group is kept (`select.py`), SQL (`ledger/duplicates.py`).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from keeptake.audio.fingerprint import BINS, BITS, FRAME_S, Codes, differing_bits, rotate
from keeptake.curation.candidates import SHIFTS_FRAMES, Corpus, Shared, Wanted, candidates, lay_out

DUPLICATES_VERSION = "aligned-4"  # 4: nor an excerpt, which keeps takes in one split

SPEEDS = np.round(np.arange(0.96, 1.0401, 0.005), 3)
FINE_SPEEDS = np.arange(-0.004, 0.0041, 0.001)
TIE = 0.995  # alignments within this share of the best score are equal; the speed nearest to 1 is reported
MATCH_FRAMES = 21  # two seconds over which the bit error is averaged to tell where two takes are the same
MAX_MATCH_ERROR = 0.25
MAX_BIT_ERROR = 0.20
# Where one is turned or played faster: among so many ways to lay two takes over each other, different takes with one progression
# of chords came to 0.135 and more; 66 labelled pairs of such copies to 0.106 at most.
MAX_ALTERED_ERROR = 0.13
PLAIN_SPEED = 0.0075
# Siblings of one prompt that play one progression agree where their chords do, to 0.059 at best, and differ in between. A copy
# that is altered all over may agree worse, but without a gap; one that is the same sound in parts agrees better there.
MIN_UNBROKEN = 0.95  # of the frames that are compared from the first to the last match
MAX_BROKEN_ERROR = 0.05
# Of 464 renders, many in one key and style, 212 pairs agree in part: those without a gap for 8.8 s at most, the longer ones to
# 0.059 at best. Excerpts of 28 s, among them faster and turned ones, have no gap; the plain ones agree to 0.03.
MIN_UNBROKEN_PART_S = 10.0
MIN_MATCH_S = 3.0
MIN_SHARE = 0.6  # two excerpts of one song that repeats itself reached 0.42, labelled copies to 0.96 at least

Relation = Literal["duplicate", "excerpt", "alike"]


@dataclass(frozen=True, slots=True)
class DuplicatePair:
    """Two takes that share sound, with the evidence."""

    a: str
    b: str
    relation: Relation
    offset_s: float
    speed: float
    rotation: float
    bit_error: float
    matched_s: float
    share: float  # of the longer take that is matched, in [0, 1]
    unbroken: float  # of the frames that are compared from the first to the last match, in [0, 1]
    cosine: float | None


@dataclass(frozen=True, slots=True)
class Group:
    """Takes connected by duplicates, in order of their names, with the pairs that connect them."""

    members: tuple[str, ...]
    pairs: tuple[DuplicatePair, ...]


def find_duplicates(
    fingerprints: Mapping[str, Codes],
    vectors: Mapping[str, NDArray[np.float32]] | None = None,
    *,
    new: Collection[str] | None = None,
    among_new: bool = True,
) -> list[DuplicatePair]:
    """Find the pairs of takes that share sound.

    Parameters
    ----------
    fingerprints : mapping of name to np.ndarray [shape=(frames,), uint64]
        From `audio.fingerprint.fingerprint`. Names carry no meaning.
    vectors : mapping of name to np.ndarray [shape=(d,)], optional
        Embeddings; where both of a pair are given, their cosine is part of the evidence.
    new : collection of names, optional
        Only pairs with at least one of these: new takes against the stored ones.
    among_new : bool
        Whether pairs of two new takes count; False where stored takes come in portions and the new ones were compared before.

    Returns
    -------
    list of DuplicatePair
        Ordered by names, a < b. Beyond `NEXT_IN_ROW` copies of one sound not every pair is named, but each is connected.
    """
    corpus = lay_out(fingerprints)
    is_new = np.ones(len(corpus.names), bool) if new is None else np.isin(corpus.names, list(new))
    wanted = Wanted(is_new, among_new)
    pairs = (_align(corpus, a, b, hypotheses) for a, b, hypotheses in candidates(corpus, wanted))
    return with_cosines([pair for pair in pairs if pair is not None], vectors or {})


def tells_enough(codes: Codes) -> bool:
    """Whether a take says enough to be compared: a shorter match than `MIN_MATCH_S` is never believed."""
    return bool(np.count_nonzero(codes) * FRAME_S >= MIN_MATCH_S)


def groups(pairs: Sequence[DuplicatePair]) -> list[Group]:
    """Connect duplicates into groups, largest first; other pairs connect nothing."""
    duplicates = [pair for pair in pairs if pair.relation == "duplicate"]
    names = sorted({name for pair in duplicates for name in (pair.a, pair.b)})
    if not names:
        return []
    place = {name: i for i, name in enumerate(names)}
    rows, columns = [place[pair.a] for pair in duplicates], [place[pair.b] for pair in duplicates]
    links = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(len(names), len(names)))
    count, label = connected_components(links, directed=False)
    members: list[list[str]] = [[] for _ in range(count)]
    inside: list[list[DuplicatePair]] = [[] for _ in range(count)]
    for name, at in zip(names, label, strict=True):
        members[at].append(name)
    for pair in duplicates:
        inside[label[place[pair.a]]].append(pair)
    found = [Group(tuple(m), tuple(p)) for m, p in zip(members, inside, strict=True)]
    return sorted(found, key=lambda group: (-len(group.members), group.members))


def with_cosines(pairs: Iterable[DuplicatePair], vectors: Mapping[str, NDArray[np.float32]]) -> list[DuplicatePair]:
    """Add the second witness: the cosine of the embeddings, of those pairs that both have one."""
    return [replace(pair, cosine=_cosine(vectors.get(pair.a), vectors.get(pair.b))) for pair in pairs]


def _cosine(a: NDArray[np.float32] | None, b: NDArray[np.float32] | None) -> float | None:
    if a is None or b is None:
        return None
    size = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return round(float(np.dot(a, b)) / size, 4) if size > 0 else None


class _Alignment(NamedTuple):
    """Frame i of the first take lies at frame `offset + i / speed` of the second; `score` is agreement beyond chance, in bits."""

    score: float
    speed: float
    offset: float
    steps: int


def _align(corpus: Corpus, a: int, b: int, hypotheses: Shared) -> DuplicatePair | None:
    """Lay two takes over each other at the best speed, and tell how much of them is the same."""
    first, second = corpus.of(a), corpus.of(b)
    best = _Alignment(0.0, 1.0, 0.0, 0)
    for at_a, at_b, steps in zip(hypotheses.a - corpus.start[a], hypotheses.b - corpus.start[b], hypotheses.steps, strict=True):
        turned = rotate(first, steps)
        coarse = _best_alignment(turned, second, SPEEDS, int(at_a), int(at_b), int(steps))
        fine = _best_alignment(turned, second, coarse.speed + FINE_SPEEDS, int(at_a), int(at_b), int(steps))
        best = max(best, coarse, fine)
    if best.score <= 0:
        return None
    differ = _laid_over(rotate(first, best.steps), second, np.array([best.speed]), np.array([best.offset]))[0]
    return _judged(differ, best, corpus.names[a], corpus.names[b], longer=max(_telling(first), _telling(second)))


def _best_alignment(turned: Codes, second: Codes, speeds: NDArray[np.float64], at_a: int, at_b: int, steps: int) -> _Alignment:
    """Among speeds, and shifts beside the shared frame, the one with most agreement: length counts, not the share."""
    speed = np.repeat(speeds, len(SHIFTS_FRAMES))
    offset = at_b - at_a / speed + np.tile(SHIFTS_FRAMES, len(speeds))
    differ = _laid_over(turned, second, speed, offset)
    score = np.where(differ >= 0, BITS / 2 - differ, 0).sum(axis=1)
    near_best = np.flatnonzero(score >= min(TIE * score.max(), score.max()))  # the best may be below 0: worse than chance
    top = int(near_best[np.abs(speed[near_best] - 1).argmin()])  # frames are too coarse to tell small speeds of short takes
    return _Alignment(float(score[top]), float(speed[top]), float(offset[top]), steps)


def _laid_over(turned: Codes, second: Codes, speed: NDArray[np.float64], offset: NDArray[np.float64]) -> NDArray[np.int64]:
    """Differing bits at each frame of the first take, a row for each alignment; -1 where there is nothing to compare."""
    at = np.rint(offset[:, None] + np.arange(len(turned)) / speed[:, None]).astype(np.int64)
    at[(at < 0) | (at >= len(second))] = len(second)  # where a code stands that tells nothing
    return differing_bits(turned, np.append(second, np.uint64(0))[at])


def _judged(differ: NDArray[np.int64], alignment: _Alignment, a: str, b: str, *, longer: int) -> DuplicatePair | None:
    """What two laid-over takes are to each other."""
    compared = uniform_filter1d((differ >= 0).astype(float), MATCH_FRAMES, mode="constant")
    error = uniform_filter1d(differ.clip(0).astype(float), MATCH_FRAMES, mode="constant") / (BITS * compared.clip(1e-9))
    matched = (differ >= 0) & (error <= MAX_MATCH_ERROR)
    matched_s = float(matched.sum()) * FRAME_S
    if matched_s < MIN_MATCH_S:
        return None
    bit_error = float(differ[matched].mean()) / BITS
    is_plain = alignment.steps == 0 and abs(alignment.speed - 1) < PLAIN_SPEED
    if bit_error > (MAX_BIT_ERROR if is_plain else MAX_ALTERED_ERROR):
        return None
    share = min(1.0, float(matched.sum()) / longer)
    unbroken = _unbroken(differ, matched)
    quarter_tones = (alignment.steps + BINS // 2) % BINS - BINS // 2
    return DuplicatePair(
        a=a,
        b=b,
        relation=_relation(bit_error, unbroken, share, matched_s),
        offset_s=round(alignment.offset * FRAME_S, 2),
        speed=round(alignment.speed, 3),
        rotation=quarter_tones / 2,
        bit_error=round(bit_error, 4),
        matched_s=round(matched_s, 1),
        share=round(share, 3),
        unbroken=round(unbroken, 3),
        cosine=None,
    )


def _relation(bit_error: float, unbroken: float, share: float, matched_s: float) -> Relation:
    agrees_well, holds_together = bit_error <= MAX_BROKEN_ERROR, unbroken >= MIN_UNBROKEN
    if share >= MIN_SHARE and (agrees_well or holds_together):
        return "duplicate"
    return "excerpt" if agrees_well or (holds_together and matched_s >= MIN_UNBROKEN_PART_S) else "alike"


def _unbroken(differ: NDArray[np.int64], matched: NDArray[np.bool_]) -> float:
    """Share of matches among the frames that are compared from the first to the last of them."""
    at = np.flatnonzero(matched)
    return len(at) / np.count_nonzero(differ[at[0] : at[-1] + 1] >= 0)


def _telling(codes: Codes) -> int:
    return max(1, int(np.count_nonzero(codes)))
