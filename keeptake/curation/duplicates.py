"""Which takes are copies of each other? Candidates from an index, each verified, then grouped.

A copy may be re-encoded, louder, trimmed, filtered, noisy, up to 4 % faster or slower, and transposed. It is a `duplicate` where
three fifths of the longer one or more are the same sound in both, and hold together; an `excerpt` where it is less: a medley
holds excerpts of many takes and must not make one group of them all. What agrees for a while as different takes with one
progression of chords do is `alike`, and no evidence of one recording.

How: every frame of a fingerprint gives two keys, the least of twelve rotations of the code words here and 0.6 s later, which no
transposition changes. Takes that share a key are compared around the shared frame, over speeds where that looks alike
(`_agree_locally`), and what agrees there is aligned as a whole (`_align`). A key shared by many is compared with the next few in
its row only, so that the work grows with the number of takes and never with its square; groups close what that leaves out.

Conventions: `b` begins `offset_s` seconds after `a` has (negative: before), `speed` is how much faster b plays, `rotation` how
many semitones b is above a. Belongs here: takes to pairs and groups. Does not: sound to code words (`audio/fingerprint.py`),
which of a group is kept (`select.py`), SQL (`ledger/duplicates.py`).
"""

import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from keeptake.audio.fingerprint import BINS, BITS, FRAME_S, Codes, differing_bits, rotate

DUPLICATES_VERSION = "aligned-4"  # 4: nor an excerpt, which keeps takes in one split

KEY_LAG_FRAMES = 6  # the second half of a key: 3 % of 0.6 s is a fifth of a frame
NEXT_IN_ROW = 12  # how many neighbours sharing a key each entry is compared with
LOCAL_FRAMES = 16  # on either side of a shared key: 3 % of 1.6 s is half a frame
SHIFTS_FRAMES = (-0.5, 0.0, 0.5)  # beside a shared frame; -1, 0, 1 laid three copies in a thousand half a frame off
LOCAL_SPEEDS = np.round(np.arange(0.96, 1.0401, 0.01), 2)
GAP_FRAMES = math.ceil(
    LOCAL_FRAMES / LOCAL_SPEEDS[0] + SHIFTS_FRAMES[-1]
)  # between takes: as far as a window at the least speed reaches
MAX_LOCAL_ERROR = 0.22  # passes 0.1 % of keys that unrelated takes share, loses 2 of 593 copies (0.24: 0.8 %, 1; 0.28: 7 %, none)
MAX_LOCAL_ERROR_AT_SPEED = 0.21  # at the best of them: loses none of 2,867 copies (0.20: 1), drops half of the unrelated pairs
HYPOTHESES = 4  # alignments tried for a pair
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
ENTRIES_A_PORTION = 1 << 22  # keys, or frames, worked on at a time: what bounds memory at 100,000 takes
WINDOWS_A_PORTION = 1 << 12  # fits into the cache

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


class _Corpus(NamedTuple):
    """Fingerprints end to end, with code 0 between them, so that a window round any frame needs no look at where takes end."""

    names: list[str]
    codes: Codes
    start: NDArray[np.int64]
    length: NDArray[np.int64]

    def of(self, take: int) -> Codes:
        """Code words of one take."""
        return self.codes[self.start[take] : self.start[take] + self.length[take]]

    def take_at(self, position: NDArray[np.integer]) -> NDArray[np.int64]:
        """Which take each position belongs to."""
        return np.searchsorted(self.start, position, side="right") - 1


class _Wanted(NamedTuple):
    """Which pairs of takes are asked for."""

    is_new: NDArray[np.bool_]
    among_new: bool

    def pairs(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each pair of takes is."""
        if self.among_new:
            return self.is_new[a] | self.is_new[b]
        return self.is_new[a] ^ self.is_new[b]


class _Shared(NamedTuple):
    """Frames of two takes with the same key: positions in the corpus, and quarter tones from a up to b."""

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    steps: NDArray[np.int64]

    def only(self, keep: NDArray[np.bool_]) -> "_Shared":
        """Those that `keep` marks."""
        return _Shared(self.a[keep], self.b[keep], self.steps[keep])


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
    corpus = _lay_out(fingerprints)
    is_new = np.ones(len(corpus.names), bool) if new is None else np.isin(corpus.names, list(new))
    wanted = _Wanted(is_new, among_new)
    pairs = (_align(corpus, a, b, hypotheses) for a, b, hypotheses in _candidates(corpus, wanted))
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


def _lay_out(fingerprints: Mapping[str, Codes]) -> _Corpus:
    names = sorted(fingerprints)
    length = np.array([len(fingerprints[name]) for name in names], np.int64)
    start = GAP_FRAMES + np.concatenate([[0], np.cumsum(length[:-1] + GAP_FRAMES)]).astype(np.int64)[: len(names)]
    codes = np.zeros(int((length + GAP_FRAMES).sum()) + GAP_FRAMES, np.uint64)
    for name, at, size in zip(names, start, length, strict=True):
        codes[at : at + size] = fingerprints[name]
    return _Corpus(names, codes, start, length)


def _candidates(corpus: _Corpus, wanted: _Wanted) -> Iterator[tuple[int, int, _Shared]]:
    """Pairs of takes that agree around at least one shared key, with their likeliest alignments."""
    found = [_agree_locally(corpus, shared) for shared in _shared_keys(corpus, wanted)]
    if not found:
        return
    shared = _Shared(*(np.concatenate(column) for column in zip(*found, strict=True)))
    pair = corpus.take_at(shared.a) * len(corpus.names) + corpus.take_at(shared.b)
    order = np.argsort(pair, kind="stable")
    edges = np.flatnonzero(np.diff(pair[order])) + 1
    for rows in np.split(order, edges) if len(order) else ():
        a, b = divmod(int(pair[rows[0]]), len(corpus.names))
        yield a, b, _most_voted(_Shared(shared.a[rows], shared.b[rows], shared.steps[rows]))


def _most_voted(shared: _Shared) -> _Shared:
    """One shared frame for each of the alignments that most of them name."""
    alignment = np.stack([shared.steps, (shared.b - shared.a) // LOCAL_FRAMES])
    _, first, votes = np.unique(alignment, axis=1, return_index=True, return_counts=True)
    best = first[np.argsort(-votes, kind="stable")[:HYPOTHESES]]
    return _Shared(shared.a[best], shared.b[best], shared.steps[best])


def _shared_keys(corpus: _Corpus, wanted: _Wanted) -> Iterator[_Shared]:
    """Frames of different takes with equal keys, in portions that fit into memory."""
    key, turn = _keys(corpus)
    tells = np.repeat(corpus.codes[:-KEY_LAG_FRAMES] != 0, 2) & np.repeat(corpus.codes[KEY_LAG_FRAMES:] != 0, 2)
    portions = 1 + len(key) // ENTRIES_A_PORTION
    portion_of = np.where(tells, key % np.uint64(portions), portions).astype(np.uint16)
    for portion in range(portions):
        entries = np.flatnonzero(portion_of == portion)
        order = np.argsort(key[entries], kind="stable")
        take = corpus.take_at(entries // 2)[order]  # before they are out of order: looking up goes with the cache then
        entries = entries[order]
        row = key[entries]
        first = np.ones(len(entries), bool)
        first[1:] = (row[1:] != row[:-1]) | (take[1:] != take[:-1])  # a loop repeats its keys
        entries, row, take = entries[first], row[first], take[first]
        at = np.arange(len(row))
        for ahead in range(1, NEXT_IN_ROW + 1):
            at = at[at < len(row) - ahead]
            at = at[row[at] == row[at + ahead]]
            asked = at[wanted.pairs(take[at], take[at + ahead])]
            one, other = entries[asked], entries[asked + ahead]
            yield _Shared(one // 2, other // 2, turn[one].astype(np.int64) - turn[other])


def _keys(corpus: _Corpus) -> tuple[Codes, NDArray[np.int8]]:
    """Two keys a frame, for the even and the odd quarter tones, and how far each was turned to its least form."""
    frames = len(corpus.codes) - KEY_LAG_FRAMES
    key, turn = np.empty((frames, 2), np.uint64), np.empty((frames, 2), np.int8)
    for first in range(0, frames, ENTRIES_A_PORTION):
        block = slice(first, min(frames, first + ENTRIES_A_PORTION))
        for odd in range(2):
            words = _semitones(rotate(corpus.codes[first : block.stop + KEY_LAG_FRAMES], -odd))
            key[block, odd], turn[block, odd] = _least_form(words[:-KEY_LAG_FRAMES], words[KEY_LAG_FRAMES:], odd)
    return key.ravel(), turn.ravel()


def _semitones(codes: Codes) -> Codes:
    """Keep every second pitch class: the even pairs of bits, moved together into 24 bits."""
    packed = codes & np.uint64(0x333333333333)
    for shift, mask in ((2, 0x0F0F0F0F0F0F), (4, 0x00FF00FF00FF), (8, 0x00FF0000FFFF), (16, 0xFFFFFF)):
        packed = (packed | (packed >> np.uint64(shift))) & np.uint64(mask)
    return packed


def _least_form(now: Codes, later: Codes, odd: int) -> tuple[Codes, NDArray[np.int8]]:
    """Least of the twelve joint rotations of two 24-bit words, and the quarter tones upwards that lead to it."""
    least, turn = (later << np.uint64(BINS)) | now, np.full(len(now), -odd, np.int8)
    for semitones in range(1, BINS // 2):
        up, down = np.uint64(2 * semitones), np.uint64(BINS - 2 * semitones)
        turned = (_turn24(later, up, down) << np.uint64(BINS)) | _turn24(now, up, down)
        lower = turned < least
        least[lower], turn[lower] = turned[lower], 2 * semitones - odd
    return least, turn


def _turn24(words: Codes, up: np.uint64, down: np.uint64) -> Codes:
    return ((words << up) | (words >> down)) & np.uint64((1 << BINS) - 1)


def _agree_locally(corpus: _Corpus, shared: _Shared) -> _Shared:
    """Those shared keys around which the two takes agree for a while, and agree better at one of several speeds.

    Where takes are unrelated and agree by chance, no speed helps much; a copy is far below the limit at its own.
    """
    agreeing = shared.only(_local_error(corpus, shared, [1.0], [0.0]) <= MAX_LOCAL_ERROR)
    return agreeing.only(_local_error(corpus, agreeing, LOCAL_SPEEDS, SHIFTS_FRAMES) <= MAX_LOCAL_ERROR_AT_SPEED)


def _local_error(corpus: _Corpus, shared: _Shared, speeds: Iterable[float], shifts: Sequence[float]) -> NDArray[np.float64]:
    """Share of differing bits around each shared key at the best of some speeds and shifts in frames; 1: too little tells."""
    if not len(shared.a):
        return np.ones(0)
    around = np.arange(-LOCAL_FRAMES, LOCAL_FRAMES + 1)
    windows, wider = (sliding_window_view(corpus.codes, 2 * reach + 1) for reach in (LOCAL_FRAMES, GAP_FRAMES))
    least = np.ones(len(shared.a))
    for first in range(0, len(least), WINDOWS_A_PORTION):
        block = slice(first, first + WINDOWS_A_PORTION)
        a = rotate(windows[shared.a[block] - LOCAL_FRAMES], shared.steps[block, None])
        b = wider[shared.b[block] - GAP_FRAMES]
        for speed, shift in itertools.product(speeds, shifts):
            differ = differing_bits(a, b[:, GAP_FRAMES + np.rint(around / speed + shift).astype(np.int64)])
            compared = (differ >= 0).sum(axis=1)
            error = differ.clip(0).sum(axis=1) / (BITS * compared.clip(1))
            least[block] = np.minimum(least[block], np.where(compared >= LOCAL_FRAMES, error, 1.0))
    return least


class _Alignment(NamedTuple):
    """Frame i of the first take lies at frame `offset + i / speed` of the second; `score` is agreement beyond chance, in bits."""

    score: float
    speed: float
    offset: float
    steps: int


def _align(corpus: _Corpus, a: int, b: int, hypotheses: _Shared) -> DuplicatePair | None:
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
