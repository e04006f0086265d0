"""How danceable is it? How regularly the level moves at the time scales of a bar.

Conventions: levels are root mean squares of frames of `FRAME_S`. Danceability is 1 over the mean scaling exponent of their
fluctuation: 0.7 for a level that wanders, 1 for one over f, 2 for white noise, more where a pulse brings the level back within
each period [1]_. Between 0 and `MOST`.

Belongs here: fluctuation over time scales. Does not: tempo (`tempo.py`), how loud it is (`loudness.py`).

References
----------
.. [1] Streich, S. & Herrera, P. (2005), "Detrended fluctuation analysis of music signals: danceability estimation and further
   semantic characterization", AES 118.
.. [2] Peng, C.-K. et al. (1994), "Mosaic organization of DNA nucleotides", Physical Review E 49(2): the analysis itself.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

FRAME_S = 0.01
SHORTEST_S, LONGEST_S, STEP = 0.31, 8.8, 1.1  # time scales of [1]_
WINDOWS_A_SCALE = 2  # hop of half a window
FEWEST_SCALES = 24  # up to 2.8 s: a bar of four beats at 86 BPM
MOST = 3.0


def danceability(mono: Floats, *, sample_rate_hz: int) -> float | None:
    """Danceability by detrended fluctuation analysis [1]_.

    Parameters
    ----------
    mono : np.ndarray [shape=(n,)]
        Samples of a mix.
    sample_rate_hz : int

    Returns
    -------
    float or None
        In [0, `MOST`]; None for a clip that does not hold `FEWEST_SCALES` time scales twice, or whose level does not move.
    """
    exponents = scaling_exponents(frame_levels(mono, sample_rate_hz=sample_rate_hz), frame_rate_hz=1 / FRAME_S)
    if exponents.size < FEWEST_SCALES - 1:
        return None
    return min(MOST, 1 / max(float(exponents.mean()), 1 / MOST))


def frame_levels(mono: Floats, *, sample_rate_hz: int) -> Floats:
    """Root mean square of each whole frame of `FRAME_S`, shape (frames,)."""
    samples = round(FRAME_S * sample_rate_hz)
    frames = mono[: mono.size // samples * samples].reshape(-1, samples)
    levels: Floats = np.sqrt(np.einsum("ij,ij->i", frames, frames) / samples, dtype=np.float64)
    return levels


def scaling_exponents(series: Floats, *, frame_rate_hz: float) -> Floats:
    """Slope of fluctuation over time scale, in logarithms, between neighbouring scales [2]_.

    Parameters
    ----------
    series : np.ndarray [shape=(n,)]
    frame_rate_hz : float
        Values a second.

    Returns
    -------
    np.ndarray [shape=(scales - 1,)]
        About 0.5 for white noise, 1 for one over f, 1.5 for its running sum; empty for a constant series, or one that does not
        hold two windows of two scales.
    """
    count = int(np.log(LONGEST_S / SHORTEST_S) / np.log(STEP)) + 1
    windows = np.round(SHORTEST_S * STEP ** np.arange(count) * frame_rate_hz).astype(int)
    windows = windows[2 * windows <= series.size]
    if windows.size < 2 or np.ptp(series) <= 1e-9 * np.abs(series).max():
        return np.zeros(0)
    profile = np.concatenate([[0.0], np.cumsum(series - series.mean())])
    logs = np.log(_fluctuations(profile - profile.mean(), windows))
    exponents: Floats = np.diff(logs) / np.diff(np.log(windows))
    return exponents


def _fluctuations(profile: Floats, windows: Floats) -> list[float]:
    """Root mean square of what a straight line leaves of each window, by window length, from running sums."""
    place = np.arange(profile.size)
    running = [np.concatenate([[0.0], np.cumsum(values)]) for values in (profile, profile**2, place * profile)]
    left = []
    for window in windows.tolist():
        starts = np.arange(0, profile.size - window + 1, max(1, window // WINDOWS_A_SCALE))
        total, squares, moment = (sums[starts + window] - sums[starts] for sums in running)
        moment -= (starts + (window - 1) / 2) * total
        squares -= total**2 / window + moment**2 / (window * (window**2 - 1) / 12)
        left.append(float(np.sqrt(max(squares.mean() / window, 1e-300))))
    return left
