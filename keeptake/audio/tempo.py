"""How fast is it? The periods of the onset envelope, their course over time, and the tempo of a row of beats.

Conventions: tempo in beats per minute on the logarithmic grid `TEMPI_BPM`; the envelope has `frame_rate_hz` values a second.
Octave questions (70 or 140?) are answered with probabilities: the likeliest tempo is reported beside the others.

Belongs here: everything about periods. Does not: attacks (`onsets.py`), placing beats (`beats.py`), what a prompt asked for.

References
----------
.. [1] Tolonen, T. and Karjalainen, M. (2000), "A computationally efficient multipitch analysis model", IEEE TSAP 8(6): the
   generalised autocorrelation, its magnitudes compressed before the way back.
.. [2] Percival, G. and Tzanetakis, G. (2014), "Streamlined tempo estimation based on autocorrelation and cross-correlation with
   pulses", IEEE/ACM TASLP 22(12): the same on onset envelopes, with the bar's multiples of the beat.
.. [3] Peeters, G. (2006), "Template-based estimation of time-varying tempo", EURASIP JASP: autocorrelation and spectrum together,
   since one favours multiples of the period and the other divisions; tempo as a path over windows.
.. [4] Ellis, D. (2007), "Beat tracking by dynamic programming", J. New Music Research 36(1): log-normal preference of tempo.
.. [5] Elowsson, A. and Friberg, A. (2013), "Modelling the perception of speed in music audio", SMC: speed follows onset density.
.. [6] Theil, H. (1950), "A rank-invariant method of linear and polynomial regression analysis".
.. [7] Madison, G. and Merker, B. (2002), "On the limits of anisochrony in pulse attribution", Psychological Research 66(3).
"""

from typing import NamedTuple

import numpy as np
import scipy.fft
import scipy.ndimage
from numpy.typing import NDArray

Floats = NDArray[np.floating]

SLOWEST_BPM, FASTEST_BPM = 40.0, 240.0
STEPS_AN_OCTAVE = 240  # 0.29 % a step: four periods of 40 BPM differ by less than two frames between neighbours
TEMPI_BPM: Floats = SLOWEST_BPM * 2.0 ** (
    np.arange(int(np.log2(FASTEST_BPM / SLOWEST_BPM) * STEPS_AN_OCTAVE) + 1) / STEPS_AN_OCTAVE
)
OCTAVES_FROM_120: Floats = np.log2(TEMPI_BPM / 120.0)
TOLERANCE = 0.04  # what counts as the same tempo (MIREX)
RELATIVES = (0.5, 2.0, 1.5, 2 / 3)
MOST_PEAKS, LEAST_WEIGHT = 5, 0.02

DETREND_S = 1.0  # the envelope's slow course is not rhythm
COMB_BEATS = 4
# Multinomial logistic regression of the annotated tempo on this evidence: benchmarks/fit_tempo.py, benchmarks/RESULTS.md
EVIDENCE = ("comb", "bar", "subdivision", "preference", "octaves", "density")
WEIGHTS: Floats = np.array([4.3, 1.77, 0.77, 6.35, -0.99, 0.78])
DENSITY_MEAN, DENSITY_DEVIATION = 1.5, 0.4  # of log onset rate, over the dev set

WINDOW_S, WINDOW_HOP_S = 8.0, 1.0
COURSE_STEP = 4  # every fourth tempo of the grid
OCTAVE_PENALTY = 1.0  # of a path's jump by an octave, in units of correlation
MIN_CHANGE = 0.05
MIN_CORRELATION = 0.3  # of a window that speaks for a change; noise reaches 0.15
STEADY_SHARE = 0.7  # of the course's correlation: a usual tempo that has less in a window does not explain it
MIN_CHANGED_WINDOWS = 2  # in a row; of the dev set's files of one tempo none has any
MIN_BEATS = 6
MAX_DEVIATION = 0.1  # of the beat period: near where irregular intervals stop being heard as a pulse [7]


class TempoBelief(NamedTuple):
    """What the whole envelope says about tempo."""

    probability: Floats  # over `TEMPI_BPM`, sums to 1
    clarity: Floats  # autocorrelation at the beat's first multiples, in [-1, 1], over `TEMPI_BPM`

    def clarity_at(self, tempo_bpm: float) -> float:
        """Clarity of the grid's tempo nearest to `tempo_bpm`."""
        return float(self.clarity[np.argmin(np.abs(TEMPI_BPM - tempo_bpm))])


class TempoCourse(NamedTuple):
    """A tempo for each window."""

    centres_s: Floats
    tempi_bpm: Floats
    clarity: float  # mean correlation along the course
    is_change: bool


def detrended(envelope: Floats, frame_rate_hz: float) -> Floats:
    """Return the envelope without its mean over `DETREND_S`."""
    trend: Floats = scipy.ndimage.uniform_filter1d(envelope, max(1, round(DETREND_S * frame_rate_hz)))
    return envelope - trend


def tempo_evidence(envelope: Floats, *, frame_rate_hz: float, onset_rate_hz: float) -> tuple[Floats, Floats]:
    """Features of every tempo of the grid.

    Parameters
    ----------
    envelope : np.ndarray [shape=(frames,)]
        Onset envelope, with its trend removed, not constant.
    frame_rate_hz, onset_rate_hz : float
        Frames and onsets a second.

    Returns
    -------
    evidence : np.ndarray [shape=(tempi, len(EVIDENCE))]
        In the order of `EVIDENCE`.
    clarity : np.ndarray [shape=(tempi,)]
        Plain autocorrelation, mean of the beat's first `COMB_BEATS` multiples.

    References
    ----------
    [1]_, [2]_, [3]_, [4]_, [5]_
    """
    lags = frame_rate_hz * 60 / TEMPI_BPM
    size = scipy.fft.next_fast_len(int(max(2 * envelope.size, COMB_BEATS * lags[0] + 2)), real=True)
    magnitude = np.abs(scipy.fft.rfft(envelope, size))
    plain = _at(_normalised(scipy.fft.irfft(magnitude**2, size)), lags[:, None] * np.arange(1, COMB_BEATS + 1))
    general = _at(_normalised(scipy.fft.irfft(magnitude, size)), lags[:, None] * np.arange(1, COMB_BEATS + 1))
    peaks = scipy.ndimage.maximum_filter1d(magnitude / np.sqrt(np.mean(magnitude**2)), 5)
    twice = _at(peaks, 2 * TEMPI_BPM / 60 / frame_rate_hz * size)
    density = np.clip((np.log(onset_rate_hz + 0.3) - DENSITY_MEAN) / DENSITY_DEVIATION, -2, 2)
    evidence = np.column_stack(
        [
            np.log(np.maximum(general.mean(axis=1), 0.003)),
            np.log(np.maximum(general[:, -1], 0.01)),
            np.log(np.maximum(twice, 0.1)),
            -(OCTAVES_FROM_120**2) / 2,
            OCTAVES_FROM_120,
            density * OCTAVES_FROM_120,
        ]
    )
    return evidence, plain.mean(axis=1)


def believe_tempo(envelope: Floats, *, frame_rate_hz: float, onset_rate_hz: float) -> TempoBelief:
    """Probability of every tempo of the grid, given the whole envelope (detrended, not constant)."""
    evidence, clarity = tempo_evidence(envelope, frame_rate_hz=frame_rate_hz, onset_rate_hz=onset_rate_hz)
    logits = evidence @ WEIGHTS
    odds = np.exp(logits - logits.max())
    return TempoBelief(odds / odds.sum(), clarity)


def tempo_candidates(probability: Floats, *, first_bpm: float | None = None) -> list[tuple[float, float]]:
    """List tempi with the probability within `TOLERANCE` of each, likeliest first; together at most 1.

    The peaks that hold at least `LEAST_WEIGHT`, and whatever its weight the half, double, 3:2 and 2:3 of the first within the
    grid, so that a requested tempo can be compared at every metrical level.

    Parameters
    ----------
    probability : np.ndarray [shape=(tempi,), sums to 1]
        Over `TEMPI_BPM`.
    first_bpm : float, optional
        A tempo that was found otherwise: it comes first, however likely.
    """
    left = probability.copy()
    reach = int(np.log2(1 + TOLERANCE) * STEPS_AN_OCTAVE)
    found: list[tuple[float, float]] = []

    def take(step: int) -> tuple[float, float]:
        near = slice(max(0, step - reach), step + reach + 1)
        weight = float(left[near].sum())
        left[near] = 0
        return float(TEMPI_BPM[near][np.argmax(probability[near])]), weight

    if first_bpm is not None:
        found.append((first_bpm, take(int(np.argmin(np.abs(TEMPI_BPM - first_bpm))))[1]))
    while len(found) < MOST_PEAKS:
        mass = np.convolve(left, np.ones(reach + 1), mode="same")  # half the tolerance to either side finds the middle of a peak
        if mass.max() < LEAST_WEIGHT:
            break
        found.append(take(int(np.argmax(mass))))
    main_step = int(np.argmin(np.abs(TEMPI_BPM - found[0][0])))
    for ratio in RELATIVES:
        step = main_step + round(np.log2(ratio) * STEPS_AN_OCTAVE)
        if 0 <= step < TEMPI_BPM.size and all(abs(bpm / TEMPI_BPM[step] - 1) > TOLERANCE for bpm, _ in found):
            found.append((float(TEMPI_BPM[step]), take(step)[1]))
    return found[:1] + sorted(found[1:], key=lambda candidate: -candidate[1])


def tempo_course(envelope: Floats, *, frame_rate_hz: float) -> TempoCourse | None:
    """Follow the tempo through windows of `WINDOW_S` as the best path over local autocorrelations.

    A change is flagged where, for `MIN_CHANGED_WINDOWS` in a row, the course is away from its usual tempo and that does not
    explain the windows: one that merely prefers another metrical level still supports the usual tempo, one at another tempo does
    not. Tempi that share a period (3:2, 4:3) can explain each other and are missed.

    Returns
    -------
    TempoCourse or None
        None for less than two windows.

    References
    ----------
    [3]_
    """
    width, hop = round(WINDOW_S * frame_rate_hz), round(WINDOW_HOP_S * frame_rate_hz)
    if envelope.size < width + hop:
        return None
    taper = np.hanning(width).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(envelope, width)[::hop] * taper
    size = scipy.fft.next_fast_len(2 * width, real=True)
    correlation = scipy.fft.irfft(np.abs(scipy.fft.rfft(windows, size, axis=1)) ** 2, size, axis=1)
    bias = scipy.fft.irfft(np.abs(scipy.fft.rfft(taper, size)) ** 2, size)
    correlation = correlation / np.maximum(correlation[:, :1], 1e-9) / np.maximum(bias / bias[0], 0.1)
    tempi = TEMPI_BPM[::COURSE_STEP]
    lags = frame_rate_hz * 60 / tempi
    support = np.mean([_at(correlation, lags * beat) for beat in range(1, COMB_BEATS + 1)], axis=0)
    octaves = np.log2(tempi)
    path = _best_path(np.maximum(support, 0), OCTAVE_PENALTY * np.abs(octaves[:, None] - octaves))
    correlation_on_path = support[np.arange(len(path)), path]
    folded = octaves[path] - np.round(octaves[path] - np.median(octaves[path]))
    return TempoCourse(
        centres_s=(np.arange(len(path)) * hop + width / 2) / frame_rate_hz,
        tempi_bpm=2.0**folded,
        clarity=float(correlation_on_path.mean()),
        is_change=_leaves_usual_tempo(support, octaves, folded, correlation_on_path),
    )


def _leaves_usual_tempo(support: Floats, octaves: Floats, folded: Floats, correlation_on_path: Floats) -> bool:
    """Whether enough windows in a row are away from the commonest tempo and unexplained by it at any octave."""
    near = np.abs(folded[:, None] - folded) < np.log2(1 + MIN_CHANGE / 2)
    usual = folded[int(near.sum(axis=1).argmax())]
    off_octave = np.abs(octaves - usual - np.round(octaves - usual))
    explained = support[:, off_octave < 1.5 * (octaves[1] - octaves[0])].max(axis=1)
    is_away = np.abs(folded - usual) > np.log2(1 + MIN_CHANGE)
    is_changed = is_away & (explained < STEADY_SHARE * correlation_on_path) & (correlation_on_path > MIN_CORRELATION)
    in_a_row = np.convolve(is_changed, np.ones(MIN_CHANGED_WINDOWS), mode="valid")
    return bool((in_a_row == MIN_CHANGED_WINDOWS).any())


def nearest_octave(tempi_bpm: Floats, reference_bpm: float) -> Floats:
    """Double or halve a course as a whole until its median lies nearest to a reference."""
    moved: Floats = tempi_bpm * 2.0 ** np.round(np.log2(reference_bpm / np.median(tempi_bpm)))
    return moved


def fit_tempo(beats_s: Floats, *, is_steady: bool = True) -> tuple[float, float] | None:
    """Tempo of a row of beats and its stability.

    Slopes between each beat and the one half a row later, then their median [6]_: exact where a lag grid is not, and a slip of
    the beat tracker moves few of the slopes. Where the tempo changes, the commonest interval: a mean of two tempi is none.

    Parameters
    ----------
    beats_s : np.ndarray [shape=(n,), increasing]
        Beat times in seconds.
    is_steady : bool
        Whether one tempo holds throughout.

    Returns
    -------
    (tempo_bpm, tempo_stability) or None
        Beats per minute, and 1 minus the robust relative deviation of the beat intervals over `MAX_DEVIATION`, in [0, 1]; None
        with fewer than `MIN_BEATS` beats.
    """
    if beats_s.size < MIN_BEATS:
        return None
    intervals = np.diff(beats_s)
    half = beats_s.size // 2
    period_s = float(np.median((beats_s[half:] - beats_s[:-half]) / half)) if is_steady else _commonest(intervals)
    deviation = 1.4826 * float(np.median(np.abs(intervals - np.median(intervals)))) / period_s
    return 60 / period_s, float(np.clip(1 - deviation / MAX_DEVIATION, 0, 1))


def _commonest(intervals: Floats) -> float:
    """Median of the intervals that lie within half of `MIN_CHANGE` of the one that has the most such neighbours."""
    near = np.abs(intervals[:, None] / intervals - 1) < MIN_CHANGE / 2
    return float(np.median(intervals[near[near.sum(axis=1).argmax()]]))


def _normalised(correlation: Floats) -> Floats:
    return correlation / max(float(correlation[0]), 1e-12)


def _at(values: Floats, positions: Floats) -> Floats:
    """Values along the last axis at fractional positions."""
    positions = np.minimum(positions, values.shape[-1] - 1.001)
    left = positions.astype(np.intp)
    right = positions - left
    between: Floats = values[..., left] * (1 - right) + values[..., left + 1] * right
    return between


def _best_path(support: Floats, penalty: Floats) -> NDArray[np.intp]:
    """Indices of the path of most support less its penalties, one a row (Viterbi)."""
    score = support[0]
    came_from = np.zeros(support.shape, np.intp)
    for row in range(1, len(support)):
        reached = score[None, :] - penalty
        came_from[row] = reached.argmax(axis=1)
        score = reached[np.arange(len(score)), came_from[row]] + support[row]
    path = np.empty(len(support), np.intp)
    path[-1] = score.argmax()
    for row in range(len(support) - 1, 0, -1):
        path[row - 1] = came_from[row, path[row]]
    return path
