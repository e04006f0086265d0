"""Where are the beats? Dynamic programming over the onset envelope at a known tempo.

Conventions: times in seconds from the first frame's centre; a period may differ from frame to frame.

Belongs here: placing beats. Does not: choosing the tempo (`tempo.py`), counting them into bars (`meter.py`).

References
----------
.. [1] Ellis, D. (2007), "Beat tracking by dynamic programming", J. New Music Research 36(1).
"""

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

Floats = NDArray[np.floating]

TIGHTNESS = 100.0  # [1], librosa's default
WIDEST_STEP = 1.5  # an interval lies between period / WIDEST_STEP and period * WIDEST_STEP
SMOOTHING = 32  # the envelope is smoothed by a Gaussian of a period / SMOOTHING, as librosa does
SILENT_SHARE = 0.5  # beats at the ends are dropped below this share of the beats' root mean square [librosa]


def track_beats(envelope: Floats, period_s: Floats, *, frame_rate_hz: float, tightness: float = TIGHTNESS) -> Floats:
    """Place beats on attacks, a period apart as nearly as the attacks allow.

    The recursion looks back at least period / WIDEST_STEP frames, so that as many frames at a time are computed together.

    Parameters
    ----------
    envelope : np.ndarray [shape=(frames,), >= 0]
        Onset envelope.
    period_s : np.ndarray [shape=(frames,), > 0]
        Expected beat period at each frame.
    frame_rate_hz : float
        Frames a second.
    tightness : float
        What a deviation from the period costs against the strength of attacks.

    Returns
    -------
    np.ndarray [shape=(n,), float64, increasing]
        Beat times in seconds, between frames where the envelope's peak is; empty for an envelope without a peak.
    """
    period = period_s * frame_rate_hz
    local = scipy.ndimage.gaussian_filter1d(envelope / max(float(envelope.std()), 1e-9), float(np.median(period)) / SMOOTHING)
    came_from, score = _chain(local, period, tightness)
    beats = _walk_back(came_from, score, local)
    return _between_frames(beats, local) / frame_rate_hz


def _chain(local: Floats, period: Floats, tightness: float) -> tuple[NDArray[np.intp], Floats]:
    """Best predecessor (-1 for none) and score of a chain of beats that ends at each frame."""
    nearest = max(1, int(period.min() / WIDEST_STEP))
    farthest = int(np.ceil(period.max() * WIDEST_STEP))
    lags = np.arange(farthest, nearest - 1, -1)
    score = np.concatenate([np.zeros(farthest), local])  # shifted by `farthest`: a chain may begin before the first frame
    earlier = np.lib.stride_tricks.sliding_window_view(score, lags.size)  # row t: the scores `lags` before frame t, as they come
    came_from = np.full(local.size, -1, np.intp)
    log_lags, log_period = np.log(lags), np.log(period)
    for start in range(0, local.size, nearest):
        rows = np.arange(start, min(start + nearest, local.size))
        steps = log_lags - log_period[rows, None]
        reached = earlier[start : start + rows.size] - tightness * steps * steps
        best = reached.argmax(axis=1)
        gain = reached[rows - start, best]
        score[farthest + rows] += np.maximum(gain, 0)
        came_from[rows] = np.where(gain > 0, rows - lags[best], -1)
    return came_from, score[farthest:]


def _walk_back(came_from: NDArray[np.intp], score: Floats, local: Floats) -> NDArray[np.intp]:
    """Frames of the best chain, its silent ends dropped."""
    peaks = np.flatnonzero((score[1:-1] >= score[:-2]) & (score[1:-1] > score[2:])) + 1
    if peaks.size == 0:
        return np.zeros(0, np.intp)
    last = peaks[score[peaks] >= 0.5 * np.median(score[peaks])][-1]
    chain = []
    while last >= 0:
        chain.append(last)
        last = came_from[last]
    beats = np.array(chain[::-1], np.intp)
    strength = scipy.ndimage.convolve1d(local[beats], np.hanning(5)[1:-1])
    loud = np.flatnonzero(strength > SILENT_SHARE * np.sqrt(np.mean(strength**2)))
    return beats[loud[0] : loud[-1] + 1] if loud.size else beats[:0]


def _between_frames(beats: NDArray[np.intp], local: Floats) -> Floats:
    """Move each beat to the top of the parabola through its frame and both neighbours, at most half a frame."""
    inner = np.clip(beats, 1, local.size - 2)
    before, here, after = local[inner - 1], local[inner], local[inner + 1]
    bend = before - 2 * here + after
    shift = np.where((bend < 0) & (inner == beats), 0.5 * (before - after) / np.minimum(bend, -1e-9), 0)
    moved: Floats = beats + np.clip(shift, -0.5, 0.5)
    return moved
