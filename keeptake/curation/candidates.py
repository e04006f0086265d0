"""Which takes are worth laying over each other? Those that share a key, and look alike around it.

Every frame of a fingerprint gives two keys, the least of twelve rotations of the code words here and 0.6 s later, which no
transposition changes. Takes that share a key are compared around the shared frame, over speeds where that looks alike
(`_agree_locally`). A key shared by many is compared with the next few in its row only, so that the work grows with the number of
takes and never with its square.

Belongs here: fingerprints to pairs of takes and the frames that they may share. Does not: whether they do (`duplicates.py`).
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from keeptake.audio.fingerprint import BINS, BITS, Codes, differing_bits, rotate

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
ENTRIES_A_PORTION = 1 << 22  # keys, or frames, worked on at a time: what bounds memory at 100,000 takes
WINDOWS_A_PORTION = 1 << 12  # fits into the cache
HASH_BITS = 22  # of the table of new takes' words: 4 MB, near to the cache


class Corpus(NamedTuple):
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


class Wanted(NamedTuple):
    """Which pairs of takes are asked for."""

    is_new: NDArray[np.bool_]
    among_new: bool

    def pairs(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each pair of takes is."""
        if self.among_new:
            return self.is_new[a] | self.is_new[b]
        return self.is_new[a] ^ self.is_new[b]


class Shared(NamedTuple):
    """Frames of two takes with the same key: positions in the corpus, and quarter tones from a up to b."""

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    steps: NDArray[np.int64]

    def only(self, keep: NDArray[np.bool_]) -> "Shared":
        """Those that `keep` marks."""
        return Shared(self.a[keep], self.b[keep], self.steps[keep])


def lay_out(fingerprints: Mapping[str, Codes]) -> Corpus:
    """Lay fingerprints end to end, in order of their names."""
    names = sorted(fingerprints)
    length = np.array([len(fingerprints[name]) for name in names], np.int64)
    start = GAP_FRAMES + np.concatenate([[0], np.cumsum(length[:-1] + GAP_FRAMES)]).astype(np.int64)[: len(names)]
    codes = np.zeros(int((length + GAP_FRAMES).sum()) + GAP_FRAMES, np.uint64)
    for name, at, size in zip(names, start, length, strict=True):
        codes[at : at + size] = fingerprints[name]
    return Corpus(names, codes, start, length)


def candidates(corpus: Corpus, wanted: Wanted) -> Iterator[tuple[int, int, Shared]]:
    """Pairs of takes that agree around at least one shared key, with their likeliest alignments."""
    found = [_agree_locally(corpus, shared) for shared in _shared_keys(corpus, wanted)]
    if not found:
        return
    shared = Shared(*(np.concatenate(column) for column in zip(*found, strict=True)))
    pair = corpus.take_at(shared.a) * len(corpus.names) + corpus.take_at(shared.b)
    order = np.lexsort((shared.a, pair))
    edges = np.flatnonzero(np.diff(pair[order])) + 1
    for rows in np.split(order, edges) if len(order) else ():
        a, b = divmod(int(pair[rows[0]]), len(corpus.names))
        yield a, b, _most_voted(Shared(shared.a[rows], shared.b[rows], shared.steps[rows]))


def _most_voted(shared: Shared) -> Shared:
    """The first and the last shared frame of each alignment that most of them name: either may lie half a frame off."""
    alignment = np.stack([shared.steps, (shared.b - shared.a) // LOCAL_FRAMES])
    _, named, votes = np.unique(alignment, axis=1, return_inverse=True, return_counts=True)
    first = np.cumsum(votes) - votes
    ranked = np.argsort(-votes, kind="stable")[:HYPOTHESES]
    ends = np.unique(np.concatenate([first[ranked], first[ranked] + votes[ranked] - 1]))
    best = np.argsort(named, kind="stable")[ends]
    return Shared(shared.a[best], shared.b[best], shared.steps[best])


def _shared_keys(corpus: Corpus, wanted: Wanted) -> Iterator[Shared]:
    """Frames of different takes with equal keys, in portions that fit into memory."""
    entry, key, turn = _keys(corpus, wanted)
    portions = 1 + len(key) // ENTRIES_A_PORTION
    portion_of = (key % np.uint64(portions)).astype(np.uint16)
    for portion in range(portions):
        rows = np.flatnonzero(portion_of == portion)
        order = np.argsort(key[rows], kind="stable")
        take = corpus.take_at(entry[rows] // 2)[order]  # before they are out of order: looking up goes with the cache then
        rows = rows[order]
        row = key[rows]
        first = np.ones(len(rows), bool)
        first[1:] = (row[1:] != row[:-1]) | (take[1:] != take[:-1])  # a loop repeats its keys
        rows, row, take = rows[first], row[first], take[first]
        at = np.arange(len(row))
        for ahead in range(1, NEXT_IN_ROW + 1):
            at = at[at < len(row) - ahead]
            at = at[row[at] == row[at + ahead]]
            asked = at[wanted.pairs(take[at], take[at + ahead])]
            one, other = rows[asked], rows[asked + ahead]
            steps = turn[one].astype(np.int64) - turn[other]
            yield Shared((entry[one] // 2).astype(np.int64), (entry[other] // 2).astype(np.int64), steps)


class _Keyed(NamedTuple):
    """Frames with the key that they share with others: `2 * frame + odd`, key, and how far it was turned to its least form."""

    entry: NDArray[np.uint32]
    key: Codes
    turn: NDArray[np.int8]


def _keys(corpus: Corpus, wanted: Wanted) -> _Keyed:
    """Two keys a frame that tells something, for the even and the odd quarter tones, in order of the frames.

    Against few new takes only those keys that they have as well: the others can be in no pair, and to turn and sort the whole
    corpus for each take that arrives costs minutes where there are many.
    """
    met = _words_of_new(corpus, wanted)
    blocks = []
    for first in range(0, len(corpus.codes) - KEY_LAG_FRAMES, ENTRIES_A_PORTION):
        codes = corpus.codes[first : first + ENTRIES_A_PORTION + KEY_LAG_FRAMES]
        both = [_keys_of(codes, odd, met) for odd in range(2)]
        entry, key, turn = (np.concatenate(column) for column in zip(*both, strict=True))
        order = np.argsort(entry, kind="stable")
        blocks.append(_Keyed(entry[order] + np.uint32(2 * first), key[order], turn[order]))
    return _Keyed(*(np.concatenate(column) for column in zip(*blocks, strict=True)))


def _keys_of(codes: Codes, odd: int, met: Codes | None) -> _Keyed:
    now, later = _pair_of_words(codes, odd)
    tells = (codes[:-KEY_LAG_FRAMES] != 0) & (codes[KEY_LAG_FRAMES:] != 0)
    if met is not None:
        tells &= _among((later << np.uint64(BINS)) | now, met)
    at = np.flatnonzero(tells)
    return _Keyed((2 * at + odd).astype(np.uint32), *_least_form(now[at], later[at], odd))


def _words_of_new(corpus: Corpus, wanted: Wanted) -> Codes | None:
    """All pairs of words, however turned, that new takes have; None where they are too many to be worth knowing."""
    if wanted.is_new.all() or corpus.length[wanted.is_new].sum() * BINS > ENTRIES_A_PORTION:
        return None
    met: list[Codes] = []
    for take in np.flatnonzero(wanted.is_new).tolist():
        for odd in range(2 if len(corpus.of(take)) > KEY_LAG_FRAMES else 0):
            now, later = _pair_of_words(corpus.of(take), odd)
            met += [turned for turned, _ in _turns(now, later)]
    return np.unique(np.concatenate(met)) if met else np.zeros(0, np.uint64)


def _among(words: Codes, met: Codes) -> NDArray[np.bool_]:
    """Which words are among sorted others; a table of hashes first, since nearly none are."""
    table = np.zeros(1 << HASH_BITS, bool)
    table[_hash(met)] = True
    found = table[_hash(words)]
    at = np.flatnonzero(found)
    found[at] = np.isin(words[at], met)
    return found


def _hash(words: Codes) -> Codes:
    return (words * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - HASH_BITS)  # Fibonacci hashing: Knuth, TAOCP 3, 6.4


def _pair_of_words(codes: Codes, odd: int) -> tuple[Codes, Codes]:
    """The 24-bit words of every second quarter tone, here and `KEY_LAG_FRAMES` later."""
    words = _semitones(rotate(codes, -odd))
    return words[:-KEY_LAG_FRAMES], words[KEY_LAG_FRAMES:]


def _semitones(codes: Codes) -> Codes:
    """Keep every second pitch class: the even pairs of bits, moved together into 24 bits."""
    packed = codes & np.uint64(0x333333333333)
    for shift, mask in ((2, 0x0F0F0F0F0F0F), (4, 0x00FF00FF00FF), (8, 0x00FF0000FFFF), (16, 0xFFFFFF)):
        packed = (packed | (packed >> np.uint64(shift))) & np.uint64(mask)
    return packed


def _least_form(now: Codes, later: Codes, odd: int) -> tuple[Codes, NDArray[np.int8]]:
    """Least of the twelve joint rotations of two 24-bit words, and the quarter tones upwards that lead to it."""
    turns = _turns(now, later)
    least, _ = next(turns)
    turn = np.full(len(now), -odd, np.int8)
    for turned, quarter_tones in turns:
        lower = turned < least
        least[lower], turn[lower] = turned[lower], quarter_tones - odd
    return least, turn


def _turns(now: Codes, later: Codes) -> Iterator[tuple[Codes, int]]:
    """Two 24-bit words as one, turned by each number of semitones, with the quarter tones."""
    yield (later << np.uint64(BINS)) | now, 0
    for semitones in range(1, BINS // 2):
        up, down = np.uint64(2 * semitones), np.uint64(BINS - 2 * semitones)
        yield (_turn24(later, up, down) << np.uint64(BINS)) | _turn24(now, up, down), 2 * semitones


def _turn24(words: Codes, up: np.uint64, down: np.uint64) -> Codes:
    return ((words << up) | (words >> down)) & np.uint64((1 << BINS) - 1)


def _agree_locally(corpus: Corpus, shared: Shared) -> Shared:
    """Those shared keys around which the two takes agree for a while, and agree better at one of several speeds.

    Where takes are unrelated and agree by chance, no speed helps much; a copy is far below the limit at its own.
    """
    agreeing = shared.only(_local_error(corpus, shared, [1.0], [0.0]) <= MAX_LOCAL_ERROR)
    return agreeing.only(_local_error(corpus, agreeing, LOCAL_SPEEDS, SHIFTS_FRAMES) <= MAX_LOCAL_ERROR_AT_SPEED)


def _local_error(corpus: Corpus, shared: Shared, speeds: Iterable[float], shifts: Sequence[float]) -> NDArray[np.float64]:
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
