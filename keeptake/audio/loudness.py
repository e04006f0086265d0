"""How loud is it, and how much does the loudness move? ITU-R BS.1770-5 and EBU R 128.

Conventions: loudness in LUFS, ranges in LU, true peak in dBTP (0 is full scale), all at the file's own rate and channels, fed
block by block. A measure that has no ground is None: no block above the absolute gate has no loudness, under three seconds there
is no loudness range.

Belongs here: level over time and its peaks. Does not: clipping, silence and other faults (`defects.py`).

References
----------
.. [1] ITU-R BS.1770-5 (2023), "Algorithms to measure audio programme loudness and true-peak audio level".
.. [2] EBU Tech 3342 (2023), "Loudness range: a measure to supplement EBU R 128 loudness normalisation".
"""

import math

import numpy as np
from scipy.signal import firwin

from keeptake.audio.k_weighting import WeightedPower

SHORTEST_S = 0.4  # one gating block
GATING_STEPS = 4  # of `STEP_S`
SHORT_TERM_STEPS = 30
ABSOLUTE_GATE_LUFS = -70.0
RELATIVE_GATE_LU = -10.0
RANGE_GATE_LU = -20.0
OFFSET_LU = -0.691

OVERSAMPLING = 8
PEAK_TAPS = 22
PEAK_CANDIDATES = 1024
CANDIDATE_SHARE = 0.5  # a peak between samples lies beside samples of at least half the highest one, in all audio met so far

# Peak-to-loudness ratio in LU at which `dynamic_range` is 0 and 1. Masters under about 8 LU are heard as crushed and acoustic
# recordings reach 18 and more (Deruty & Tardieu 2014, "About dynamic processing in mainstream music", JAES 62).
FLAT_PLR_LU, OPEN_PLR_LU = 6.0, 18.0


class LoudnessMeter:
    """Measures loudness and peaks of a stream.

    Parameters
    ----------
    sample_rate_hz : int
        Rate of the blocks.
    channels : int
        Their number of channels.
    """

    def __init__(self, sample_rate_hz: int, channels: int) -> None:
        self._power = WeightedPower(sample_rate_hz, channels)
        self._peaks = TruePeakMeter()
        self._energy = 0.0
        self._samples = 0

    def add(self, block: np.ndarray) -> None:
        """Take in one block of shape (n, channels)."""
        self._peaks.add(block)
        self._power.add(block)
        self._energy += float(np.vdot(block, block))
        self._samples += block.size

    def values(self) -> dict[str, float | None]:
        """Return what was measured.

        Returns
        -------
        dict
            `loudness_lufs` (integrated), `loudness_range_lu`, `loudness_max_short_term_lufs`, `true_peak_dbtp`,
            `sample_peak_dbfs`, `crest_factor_db` (sample peak over root mean square of all samples), `plr_lu` (true peak minus
            loudness) and `dynamic_range` in [0, 1]: the peak-to-loudness ratio between `FLAT_PLR_LU` and `OPEN_PLR_LU`.
        """
        steps = self._power.values()
        loudness_lufs = integrated_loudness(_sliding_mean(steps, GATING_STEPS))
        short_term = _sliding_mean(steps, SHORT_TERM_STEPS)
        true_peak_dbtp = decibels(self._peaks.value())
        sample_peak_dbfs = decibels(self._peaks.sample_peak)
        rms_dbfs = decibels(math.sqrt(self._energy / max(self._samples, 1)))
        plr_lu = None if loudness_lufs is None or true_peak_dbtp is None else true_peak_dbtp - loudness_lufs
        return {
            "loudness_lufs": loudness_lufs,
            "loudness_range_lu": loudness_range(short_term),
            "loudness_max_short_term_lufs": _lufs(short_term.max()) if short_term.size and short_term.max() > 0 else None,
            "true_peak_dbtp": true_peak_dbtp,
            "sample_peak_dbfs": sample_peak_dbfs,
            "crest_factor_db": None if sample_peak_dbfs is None or rms_dbfs is None else sample_peak_dbfs - rms_dbfs,
            "plr_lu": plr_lu,
            "dynamic_range": None if plr_lu is None else min(1.0, max(0.0, (plr_lu - FLAT_PLR_LU) / (OPEN_PLR_LU - FLAT_PLR_LU))),
        }


def loudness_of(mono: np.ndarray, sample_rate_hz: int) -> float | None:
    """Integrated loudness alone: the peaks of `LoudnessMeter` cost several times as much.

    Parameters
    ----------
    mono : np.ndarray [shape=(n,), floating]
    sample_rate_hz : int

    Returns
    -------
    float or None
        LUFS; None for silence, or less than a gating block of 0.4 s.
    """
    power = WeightedPower(sample_rate_hz, 1)
    power.add(mono[:, None])
    return integrated_loudness(_sliding_mean(power.values(), GATING_STEPS))


class TruePeakMeter:
    """Finds the highest point of the curve between the samples.

    Oversampling everything is the dearest part of a loudness meter. The curve's highest point lies beside one of the highest
    samples, so only the surroundings of the most promising local maxima are interpolated: `PEAK_CANDIDATES` a block, ranked by
    what a cubic through four samples makes of the points halfway to their neighbours.
    """

    def __init__(self) -> None:
        self.sample_peak = 0.0
        self._true_peak = 0.0
        self._tails: list[np.ndarray] = []

    def add(self, block: np.ndarray) -> None:
        """Take in one block of shape (n, channels)."""
        for channel, own in enumerate(np.ascontiguousarray(block.T)):  # joining strided samples takes six times as long
            before = self._tails[channel] if len(self._tails) > channel else np.zeros(PEAK_TAPS, np.float32)
            samples = np.concatenate([before, own])
            self._search(samples)
            tail = samples[-2 * PEAK_TAPS :]  # a peak near the cut is seen with both its sides by the next block
            self._tails[channel : channel + 1] = [tail]

    def value(self) -> float:
        """Return the highest magnitude, at least the highest sample's."""
        for tail in self._tails:
            self._search(np.concatenate([tail, np.zeros(PEAK_TAPS, np.float32)]))
        return max(self._true_peak, self.sample_peak)

    def _search(self, samples: np.ndarray) -> None:
        height = np.abs(samples)
        self.sample_peak = max(self.sample_peak, float(height.max()))
        floor = max(CANDIDATE_SHARE * self.sample_peak, np.finfo(np.float32).tiny)
        at = np.flatnonzero(height[PEAK_TAPS // 2 : samples.size - PEAK_TAPS // 2] >= floor) + PEAK_TAPS // 2
        at = at[(height[at] >= height[at - 1]) & (height[at] >= height[at + 1])]
        if at.size > PEAK_CANDIDATES:
            promise = np.maximum(_midway(samples, at - 1), _midway(samples, at))
            at = at[np.argpartition(promise, -PEAK_CANDIDATES)[-PEAK_CANDIDATES:]]
        if at.size:
            around = samples[at[:, None] + np.arange(-PEAK_TAPS // 2, PEAK_TAPS // 2)]
            self._true_peak = max(self._true_peak, float(np.abs(around @ _INTERPOLATOR).max()))


def _midway(samples: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Magnitude of the cubic through four samples, halfway between the second (`at`) and the third."""
    outer, inner = samples[at - 1] + samples[at + 2], samples[at] + samples[at + 1]
    middle: np.ndarray = np.abs(9 * inner - outer) / 16
    return middle


def _interpolator() -> np.ndarray:
    """Weights of scipy's `resample_poly` for the points up to one sample on either side of a sample, shape (taps, points)."""
    reach = PEAK_TAPS // 2 - 1
    kernel = OVERSAMPLING * firwin(2 * reach * OVERSAMPLING + 1, 1 / OVERSAMPLING, window=("kaiser", 5.0))
    points = np.arange(-OVERSAMPLING + 1, OVERSAMPLING)
    place = reach * OVERSAMPLING + points[None, :] - OVERSAMPLING * np.arange(-PEAK_TAPS // 2, PEAK_TAPS // 2)[:, None]
    is_inside = (place >= 0) & (place < kernel.size)
    weights: np.ndarray = np.where(is_inside, kernel[np.where(is_inside, place, 0)], 0).astype(np.float32)
    return weights


_INTERPOLATOR = _interpolator()


def integrated_loudness(power: np.ndarray) -> float | None:
    """Gated loudness of 400 ms blocks.

    Parameters
    ----------
    power : np.ndarray [shape=(n,)]
        K-weighted, channel-weighted mean squares.

    Returns
    -------
    float or None
        LUFS; None where no block passes the absolute gate.
    """
    loud = power[power > _power(ABSOLUTE_GATE_LUFS)]
    if loud.size == 0:
        return None
    loud = loud[loud > loud.mean() * 10 ** (RELATIVE_GATE_LU / 10)]
    return _lufs(loud.mean())


def loudness_range(power: np.ndarray) -> float | None:
    """10th to 95th percentile of the gated short-term loudness (3 s, here every 100 ms).

    Parameters
    ----------
    power : np.ndarray [shape=(n,)]
        K-weighted mean squares of 3 s windows.

    Returns
    -------
    float or None
        LU; None where no window passes the absolute gate.
    """
    loud = power[power > _power(ABSOLUTE_GATE_LUFS)]
    if loud.size == 0:
        return None
    loud = loud[loud >= loud.mean() * 10 ** (RANGE_GATE_LU / 10)]
    low, high = np.percentile(loud, [10, 95])
    return float(10 * np.log10(high / low))


def decibels(amplitude: float) -> float | None:
    """Level of an amplitude against full scale; None for zero, whose level no number has."""
    return 20 * math.log10(amplitude) if amplitude > 0 else None


def _sliding_mean(steps: np.ndarray, length: int) -> np.ndarray:
    if steps.size < length:
        return np.zeros(0)
    means: np.ndarray = np.lib.stride_tricks.sliding_window_view(steps, length).mean(axis=1)
    return means


def _lufs(power: float) -> float:
    return float(OFFSET_LU + 10 * np.log10(power))


def _power(lufs: float) -> float:
    return float(10 ** ((lufs - OFFSET_LU) / 10))
