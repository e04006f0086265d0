"""Where is it broken? Clicks and dropouts, in a stream at the file's own rate.

Conventions: a click is an isolated disturbance of at most `LONGEST_CLICK_S` after which the sound goes on as if nothing had been:
what a lost bit, a scratch or a bad cut leaves. Attacks do not count (the sound is another one after them), neither do the edges
of square and sawtooth waves (they come in rows and do not return). A dropout is a gap in which all channels hold one value while
there is sound on both sides; a flat top at the local extreme is clipping or a square wave, and no gap.

Clicks are screened with the second difference, a fixed whitening that costs two subtractions a sample, and judged with an
autoregressive model of their surroundings [1]_: its residual must stand out within the click, and be gone once the click is
interpolated from both sides [2]_. The model alone would cost as much as the rest of the analysis. What a lossy codec has smeared,
clicks close to louder attacks and gaps of one channel alone are not found; what plays notes that are cut off and begin at full
level has gaps like dropouts.

Belongs here: faults in single places. Does not: faults of the whole file (`defects.py`).

References
----------
.. [1] Godsill, S. J. & Rayner, P. J. W. (1998), "Digital audio restoration", chapter 5: detection by autoregressive residual.
.. [2] Janssen, A., Veldhuis, R. & Vries, L. (1986), "Adaptive interpolation of discrete-time signals that can be modeled as
   autoregressive processes", IEEE TASSP 34(2).
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

WINDOW_S = 0.0015
# 60 ms to either side: with 30, pulse waves of a chip tune passed for six clicks, and a third fewer clicks hid behind drums.
AROUND_WINDOWS = 40
EXPECTED_PEAKS = 3  # of the surroundings, which may hold two other clicks
SCREEN_RATIO = 2.5  # second difference of a click over that of its surroundings
MAX_SCREENED = 100  # of a block, the strongest: bounds the time that hostile audio takes
BATCH_SAMPLES = 65_536  # differences stay in the second-level cache

LONGEST_CLICK_S = 0.001
LEAST_HEIGHT = 10 ** (-50 / 20)  # quieter ones are masked by any music
MODEL_ORDER = 24
MODEL_S = 0.012  # to either side of a click: music is stationary for about 20 ms [1]_
RESIDUAL_RATIO = 4.0  # of the residual within a click over the highest around it
REPAIRED_RATIO = 2.0  # the same after interpolation: an attack stays above
# A kick drum's attack keeps the slope that it bends to, and its bend is 0.04 of what interpolation finds foreign; of a single
# sample nothing stays, and it bends by twice its height.
MOST_NEW_SLOPE, LEAST_SHARPNESS = 0.25, 0.3
MOST_CHANGE = 4.0  # of the level from one side to the other

SHORTEST_DROPOUT_S = 0.003
LONGEST_DROPOUT_S = 0.2  # a longer one is a pause
HELD = 2.0**-15  # one step of 16 bits
EDGE_S = 0.01
LEAST_EDGE = 10 ** (-40 / 20)  # root mean square within `EDGE_S` of either side
INSIDE_SHARE = 0.05  # of the range of both sides, by which a held value lies inside it


class BreakMeter:
    """Counts clicks and dropouts.

    Parameters
    ----------
    sample_rate_hz : int
        Rate of the blocks.
    channels : int
        Their number of channels.

    Attributes
    ----------
    clicks, dropouts : int
        How many were found; complete after `close`.
    """

    def __init__(self, sample_rate_hz: int, channels: int) -> None:
        self._rate_hz = sample_rate_hz
        self._window = max(8, round(WINDOW_S * sample_rate_hz))
        self._margin = self._window * (AROUND_WINDOWS + 2) + round((LONGEST_DROPOUT_S + EDGE_S) * sample_rate_hz)
        self._carry = np.zeros((0, channels), np.float32)
        self._searched = 0  # of the carried samples
        self.clicks = self.dropouts = 0

    def add(self, block: np.ndarray) -> None:
        """Take in one block of shape (n, channels); its end waits for the next, joined to which it is searched."""
        margin = self._margin
        if len(block) < 4 * margin:  # the last of a stream
            self._carry = np.concatenate([self._carry, block])
            return
        start = 0
        if len(self._carry):
            start = margin
            self._search(np.concatenate([self._carry, block[: 2 * margin]]), self._searched, len(self._carry) + margin)
        self._search(block, start, len(block) - margin)
        self._carry, self._searched = block[-2 * margin :].copy(), margin

    def close(self) -> None:
        """Search what was waiting."""
        self._search(self._carry, self._searched, len(self._carry))
        self._carry, self._searched = self._carry[:0], 0

    def _search(self, samples: Floats, start: int, stop: int) -> None:
        """Count what begins in [start, stop)."""
        if len(samples) <= 2 * self._window:
            return
        peaks = bend_peaks(samples, self._window)
        at = [
            click for window in screened(peaks) if (click := click_at(samples, window, self._window, peaks, self._rate_hz)) >= 0
        ]
        self.clicks += sum(start <= click < stop for click in set(at))
        gaps = held_gaps(samples, peaks, self._window, self._rate_hz)
        self.dropouts += sum(is_dropout(samples, *gap, self._rate_hz) for gap in gaps if start <= gap[0] < stop)


def bend_peaks(samples: Floats, window: int) -> Floats:
    """Highest second difference of each whole window, over all channels.

    Parameters
    ----------
    samples : np.ndarray [shape=(n, channels), float32, C order]
    window : int
        In samples.

    Returns
    -------
    np.ndarray [shape=(n // window,), float32]
    """
    length, channels = samples.shape
    flat = samples.reshape(-1)
    peaks = np.zeros(length // window, np.float32)
    batch = max(1, BATCH_SAMPLES // (window * channels))
    for first in range(0, peaks.size, batch):
        part = flat[first * window * channels : ((first + batch) * window + 2) * channels]
        slope = part[channels:] - part[:-channels]
        bend = slope[channels:] - slope[:-channels]
        np.abs(bend, out=bend)
        whole = min(batch, bend.size // (window * channels))
        rows = bend[: whole * window * channels].reshape(whole, window * channels)
        peaks[first : first + whole] = rows.max(axis=1)
    return peaks


def screened(peaks: Floats) -> list[int]:
    """Windows whose peak stands out from those around, strongest first, `MAX_SCREENED` at most; `peaks` as of `bend_peaks`."""
    around = np.pad(peaks, AROUND_WINDOWS)
    here = around[AROUND_WINDOWS : AROUND_WINDOWS + peaks.size]

    def other(shift: int) -> Floats:
        return around[AROUND_WINDOWS + shift : AROUND_WINDOWS + shift + peaks.size]

    beside = np.maximum(np.maximum(other(-2), other(2)), np.maximum(other(-3), other(3)))
    found = np.flatnonzero((here >= other(-1)) & (here >= other(1)) & (here > SCREEN_RATIO * beside))
    found = found[here[found] > LEAST_HEIGHT]  # a click of some height bends by more than that
    levels = np.array([_around(peaks, int(window)) for window in found])
    found = found[here[found] > SCREEN_RATIO * levels] if found.size else found
    return [int(window) for window in found[np.argsort(-here[found])][:MAX_SCREENED]]


def _around(peaks: Floats, window: int) -> float:
    """The `EXPECTED_PEAKS`th highest of the windows around, those next to it left out."""
    before = peaks[max(0, window - AROUND_WINDOWS) : max(0, window - 1)]
    after = peaks[window + 2 : window + 1 + AROUND_WINDOWS]
    around = np.concatenate([before, after])
    return float(np.sort(around)[-EXPECTED_PEAKS]) if around.size >= EXPECTED_PEAKS else 0.0


def click_at(samples: Floats, window_number: int, window: int, peaks: Floats, rate_hz: int) -> int:
    """Frame at which a click of that window begins, or -1 where what stands out is none.

    Parameters
    ----------
    samples : np.ndarray [shape=(n, channels)]
    window_number, window : int
        Which window, and their length in samples.
    peaks : np.ndarray
        Of `bend_peaks`.
    rate_hz : int

    Returns
    -------
    int
    """
    reach, longest = round(MODEL_S * rate_hz), round(LONGEST_CLICK_S * rate_hz)
    first = window_number * window
    bend = np.abs(np.diff(samples[first : first + window + 2], 2, axis=0))
    frame, channel = np.unravel_index(int(bend.argmax()), bend.shape)
    top = first + int(frame) + 1
    begin = max(0, top - reach)
    signal = samples[begin : top + reach, channel].astype(np.float64)
    threshold = max(_around(peaks, window_number), 0.1 * float(bend.max()))
    near = max(0, top - begin - 2 * longest)
    bent = near + np.flatnonzero(np.abs(np.diff(signal[near : near + 4 * longest], 2)) > threshold)
    start, end = int(bent[0]), int(bent[-1]) + 3
    if end - start > longest + 4 or start < 4 * MODEL_ORDER or signal.size - end < 4 * MODEL_ORDER:
        return -1
    return begin + start if _is_click(signal, start, end) else -1


def _is_click(signal: Floats, start: int, end: int) -> bool:
    """Whether the model of the surroundings finds [start, end) foreign, and nothing foreign once it is interpolated."""
    signal = signal - signal.mean()
    rows = np.lib.stride_tricks.sliding_window_view(signal, MODEL_ORDER + 1)  # row n ends at sample n + MODEL_ORDER
    ends = np.arange(len(rows)) + MODEL_ORDER
    is_clean = (ends < start) | (ends - MODEL_ORDER >= end)
    clean = rows[is_clean]
    past, present = clean[:, :-1], clean[:, -1]
    gram = past.T @ past
    gram.flat[:: MODEL_ORDER + 1] += 1e-9 * np.trace(gram) / MODEL_ORDER + 1e-12
    predictor = np.append(-np.linalg.solve(gram, past.T @ present), 1.0)
    residual = rows @ predictor
    usual = max(float(np.abs(residual[is_clean]).max()), 1e-6)
    if float(np.abs(residual[start - MODEL_ORDER : end - MODEL_ORDER]).max()) < RESIDUAL_RATIO * usual:
        return False
    before, after = residual[: start - MODEL_ORDER].std() + 1e-6, residual[end:].std() + 1e-6
    if max(before, after) > MOST_CHANGE * min(before, after):
        return False
    touched = slice(start - MODEL_ORDER, min(end, len(rows)))
    lag = np.arange(touched.stop - touched.start)[:, None] - np.arange(end - start)
    # What each missing sample adds to each touched residual.
    unknown = np.where((lag >= 0) & (lag <= MODEL_ORDER), predictor[(MODEL_ORDER - lag).clip(0, MODEL_ORDER)], 0.0)
    change, *_ = np.linalg.lstsq(unknown, -residual[touched], rcond=None)
    repaired = residual[touched] + unknown @ change
    height = float(np.abs(change).max())
    return (
        height >= LEAST_HEIGHT
        and float(np.abs(repaired).max()) <= REPAIRED_RATIO * usual
        and _is_sharp(signal, start, end, height)
    )


def _is_sharp(signal: Floats, start: int, end: int, height: float) -> bool:
    """Whether the bends within [start, end) are as high as a click's of that height, and the slope after it that before it."""
    bends = np.diff(signal[start - 2 : end + 2], 2)
    sizes = np.abs(bends)
    return bool(abs(bends.sum()) <= MOST_NEW_SLOPE * sizes.sum() and sizes.max() >= LEAST_SHARPNESS * height)


def held_gaps(samples: Floats, peaks: Floats, window: int, rate_hz: int) -> list[tuple[int, int]]:
    """Stretches [first, last) of the length of a dropout in which every channel holds one value."""
    is_flat = np.concatenate([[False], peaks <= 2 * HELD, [False]])
    edges = np.flatnonzero(is_flat[1:] != is_flat[:-1]).reshape(-1, 2)
    gaps = []
    for first, last in edges[np.diff(edges)[:, 0] <= LONGEST_DROPOUT_S / WINDOW_S + 1]:
        begin, end = max(0, (first - 1) * window), (last + 1) * window + 1
        is_held = np.concatenate([[False], (np.abs(np.diff(samples[begin:end], axis=0)) <= HELD).all(axis=1), [False]])
        runs = np.flatnonzero(is_held[1:] != is_held[:-1]).reshape(-1, 2)
        if len(runs):
            run = runs[np.diff(runs)[:, 0].argmax()]
            gaps.append((begin + int(run[0]), begin + int(run[1]) + 1))
    return [gap for gap in gaps if SHORTEST_DROPOUT_S * rate_hz <= gap[1] - gap[0] <= LONGEST_DROPOUT_S * rate_hz]


def is_dropout(samples: Floats, first: int, last: int, rate_hz: int) -> bool:
    """Whether the same sound is on both sides of a held stretch, and the held value inside its range in every channel."""
    edge = round(EDGE_S * rate_hz)
    before, after = samples[max(0, first - edge) : first], samples[last : last + edge]
    if len(before) < edge or len(after) < edge:
        return False
    halves = (half for side in (before, after) for half in np.array_split(side, 2))  # an attack is louder in its second half
    levels = [float(np.sqrt(np.mean(half.astype(np.float64) ** 2))) for half in halves]
    if min(levels) < LEAST_EDGE or max(levels) > MOST_CHANGE * min(levels):
        return False
    both = np.concatenate([before, after])
    low, high = both.min(axis=0), both.max(axis=0)
    sounding = high - low > LEAST_EDGE
    share = (samples[first] - low) / np.maximum(high - low, LEAST_EDGE)
    is_inside = (share > INSIDE_SHARE) & (share < 1 - INSIDE_SHARE)
    return bool(sounding.any() and is_inside[sounding].all())
