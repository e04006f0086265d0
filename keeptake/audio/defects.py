"""What is wrong with it? Faults of a take, each a number, and a flag at a documented threshold.

Conventions: numbers describe the whole file at its own rate and channels, fed block by block; flags are the number compared with
the constant of the same name below. A flag states a fact (a loop is cut off by nature, and `has_abrupt_end` is then true): what
disqualifies a take is for a dataset's policy to say.

Belongs here: faults that any listener would call one. Does not: taste, and loudness (`loudness.py`).
"""

import math
from typing import NamedTuple

import numpy as np

from keeptake.audio.breaks import BreakMeter

SILENCE_DBFS = -60.0  # a window whose peak stays below is silent; the noise floor of a good studio take lies above
SILENCE_WINDOW_S = 0.05
SILENT_SHARE = 0.95  # share of silent windows from which a file is called silent

# Samples this near to a block's highest stand on its ceiling. They are clipped where more of them stand in rows of three than lie
# just below: a pure tone has 0.45 as many, a limiter touches its ceiling with single samples.
PLATEAU = 0.999
NEAR_CEILING = 0.99
# One sample in a thousand: from bursts of about this density listeners notice (Laguna & Lerch 2016, "An efficient algorithm for
# clipping detection and declipping audio", AES 141); limited masters decoded from a codec overshoot full scale less often.
CLIPPED_SHARE = 1e-3
FULLY_CLIPPED_SHARE = 1e-2  # where `no_clipping` reaches 0

DC_OFFSET = 0.01  # -40 dBFS: half a decibel of headroom is not lost before 0.06, but cuts and fades click from about here
ANTIPHASE_CORRELATION = -0.5  # below, a mono playback loses more than 6 dB
ONE_SIDED_DB = 30.0  # level difference of left and right from which one side is empty to the ear

START_WINDOW_S = 0.002  # an attack takes longer to rise: what is loud within 2 ms began before the file did
END_WINDOW_S = 0.05
ABRUPT_DB = -12.0  # level of the edge against the whole from which the sound did not end, it was cut

# Of 158 labelled files, takes as published, six have one click and none has more: one alone may be played.
LEAST_CLICKS, CLICKS_PER_MIN = 2, 2.0


FRAMES_AT_ONCE = 1024


class _Ceiling(NamedTuple):
    """How one block's samples stand near its highest one."""

    peak: float
    on: int  # within PLATEAU of it
    rows: int  # on the ceiling with both neighbours on it
    below: int  # between NEAR_CEILING and PLATEAU
    over: int  # beyond full scale


class DefectMeter:
    """Looks for faults in a stream.

    Parameters
    ----------
    sample_rate_hz : int
        Rate of the blocks.
    channels : int
        Their number of channels.
    """

    def __init__(self, sample_rate_hz: int, channels: int) -> None:
        self._window = max(1, round(SILENCE_WINDOW_S * sample_rate_hz))
        self._start_samples = max(1, round(START_WINDOW_S * sample_rate_hz))
        self._end_samples = max(1, round(END_WINDOW_S * sample_rate_hz))
        self._sum = np.zeros(channels)
        self._products = np.zeros((channels, channels))
        self._samples = 0
        self._silent_windows = self._windows = 0
        self._ceilings: list[_Ceiling] = []
        self._sample_rate_hz = sample_rate_hz
        self._breaks = BreakMeter(sample_rate_hz, channels)
        self._head: np.ndarray | None = None
        self._tail = np.zeros((0, channels), np.float32)
        self._scratch = np.zeros((0, channels), np.float32)  # fresh memory for every block costs more than the arithmetic

    def add(self, block: np.ndarray) -> None:
        """Take in one block of shape (n, channels)."""
        if self._scratch.shape != block.shape:
            self._scratch = np.empty(block.shape, np.float32)  # in C order whatever the block's: what is written must land in it
        mean = np.ones(len(block), np.float32) @ block / len(block)
        centred = _without(mean, block, out=self._scratch)  # an offset times itself would drown the rest in float32
        mean = mean.astype(np.float64)
        self._sum += len(block) * mean
        self._products += _products(centred) + len(block) * np.outer(mean, mean)
        self._samples += len(block)
        height = np.abs(block, out=self._scratch)
        self._count_silence(height)
        self._ceilings.append(_ceiling(height))
        self._breaks.add(block)
        if self._head is None:
            self._head = block[: self._start_samples].copy()
        self._tail = np.concatenate([self._tail, block[-self._end_samples :]])[-self._end_samples :]

    def values(self) -> dict[str, float | bool | None]:
        """Return every number and flag; stereo's are None for one channel, levels of the edges for a file of zeros.

        Returns
        -------
        dict
            `clipping_share`, `no_clipping` (1 unclipped, 0 from `FULLY_CLIPPED_SHARE`), `silence_share`, `dc_offset` (of the
            worst channel, signed), `stereo_correlation` (of the first two channels, in [-1, 1]), `channel_difference_db` (first
            over second), `start_level_db` and `end_level_db` (against the whole), `click_count`, `clicks_per_min` and
            `dropout_count` (see `breaks.py`), and the flags `has_clipping`, `is_silent`, `has_dc_offset`, `is_antiphase`,
            `is_one_sided`, `has_abrupt_start`, `has_abrupt_end`, `has_clicks` (at least `LEAST_CLICKS`, more than
            `CLICKS_PER_MIN`), `has_dropouts` (any).
        """
        samples = max(self._samples, 1)
        means = self._sum / samples
        covariance = self._products / samples - np.outer(means, means)
        clipping_share = self._clipping_share()
        silence_share = self._silent_windows / max(self._windows, 1)
        dc_offset = float(means[np.argmax(np.abs(means))])
        correlation, difference_db = _stereo(covariance)
        power = float(np.trace(covariance)) / len(means)
        start_level_db = _level_db(self._head, means, power)
        end_level_db = _level_db(self._tail, means, power)
        is_silent = silence_share >= SILENT_SHARE
        self._breaks.close()
        clicks_per_min = 60 * self._breaks.clicks * self._sample_rate_hz / samples
        return {
            "clipping_share": clipping_share,
            "no_clipping": 1.0 - min(1.0, clipping_share / FULLY_CLIPPED_SHARE),
            "silence_share": silence_share,
            "dc_offset": dc_offset,
            "stereo_correlation": correlation,
            "channel_difference_db": difference_db,
            "start_level_db": start_level_db,
            "end_level_db": end_level_db,
            "click_count": self._breaks.clicks,
            "clicks_per_min": clicks_per_min,
            "dropout_count": self._breaks.dropouts,
            "has_clipping": clipping_share > CLIPPED_SHARE,
            "is_silent": is_silent,
            "has_dc_offset": abs(dc_offset) > DC_OFFSET,
            "is_antiphase": correlation is not None and correlation < ANTIPHASE_CORRELATION,
            "is_one_sided": not is_silent and difference_db is not None and abs(difference_db) > ONE_SIDED_DB,
            "has_abrupt_start": not is_silent and start_level_db is not None and start_level_db > ABRUPT_DB,
            "has_abrupt_end": not is_silent and end_level_db is not None and end_level_db > ABRUPT_DB,
            "has_clicks": self._breaks.clicks >= LEAST_CLICKS and clicks_per_min > CLICKS_PER_MIN,
            "has_dropouts": self._breaks.dropouts > 0,
        }

    def _count_silence(self, height: np.ndarray) -> None:
        whole = len(height) // self._window
        rest = height[whole * self._window :]
        peaks = height[: whole * self._window].reshape(whole, -1).max(axis=1) if whole else np.zeros(0, np.float32)
        if rest.size:
            peaks = np.append(peaks, rest.max())
        self._silent_windows += int(np.count_nonzero(peaks < 10 ** (SILENCE_DBFS / 20)))
        self._windows += peaks.size

    def _clipping_share(self) -> float:
        if not self._ceilings:
            return 0.0
        highest = max(ceiling.peak for ceiling in self._ceilings)
        at_top = [ceiling for ceiling in self._ceilings if ceiling.peak >= NEAR_CEILING * highest]
        rows, below = sum(ceiling.rows for ceiling in at_top), sum(ceiling.below for ceiling in at_top)
        over = sum(ceiling.over for ceiling in self._ceilings)
        is_flat = rows > below and highest >= 10 ** (SILENCE_DBFS / 20)
        clipped = max(over, sum(ceiling.on for ceiling in at_top) if is_flat else 0)
        return clipped / (max(self._samples, 1) * len(self._sum))


def _without(mean: np.ndarray, block: np.ndarray, *, out: np.ndarray) -> np.ndarray:
    """Subtract each channel's mean, many frames at a time: over rows of two channels numpy takes ten times as long."""
    means = np.tile(mean, FRAMES_AT_ONCE)
    samples, left = block.reshape(-1), out.reshape(-1)
    whole = samples.size // means.size * means.size
    np.subtract(samples[:whole].reshape(-1, means.size), means, out=left[:whole].reshape(-1, means.size))
    np.subtract(samples[whole:], means[: samples.size - whole], out=left[whole:])
    return out


def _products(block: np.ndarray) -> np.ndarray:
    """Inner products of all channels, four frames a row: rows of two channels keep a matrix product from its pace."""
    channels = block.shape[1]
    whole = len(block) // 4 * 4
    rows, rest = block[:whole].reshape(-1, 4 * channels), block[whole:]
    products: np.ndarray = np.einsum("kikj->ij", (rows.T @ rows).reshape(4, channels, 4, channels)) + rest.T @ rest
    return products


def _ceiling(height: np.ndarray) -> _Ceiling:
    """Count the samples of one block at, near and over its ceiling; `height` has shape (n, channels)."""
    peak = float(height.max())
    over = int(np.count_nonzero(height > 1.0)) if peak > 1 else 0
    on_top = height >= PLATEAU * peak
    standing = int(np.count_nonzero(on_top))
    if standing < 3:  # most blocks: no row of three
        return _Ceiling(peak, standing, 0, 0, over)
    rows = int(np.count_nonzero(on_top[1:-1] & on_top[:-2] & on_top[2:]))
    below = int(np.count_nonzero(height >= NEAR_CEILING * peak)) - standing if rows else 0
    return _Ceiling(peak, standing, rows, below, over)


def _stereo(covariance: np.ndarray) -> tuple[float | None, float | None]:
    """Correlation and level difference (dB) of the first two channels; None where they are not defined."""
    if len(covariance) < 2:
        return None, None
    left, right = float(covariance[0, 0]), float(covariance[1, 1])
    if max(left, right) <= 0:
        return None, None
    floor = 1e-12 * max(left, right)
    difference_db = 10 * math.log10(max(left, floor) / max(right, floor))
    if min(left, right) <= floor:
        return None, difference_db
    return float(np.clip(covariance[0, 1] / math.sqrt(left * right), -1, 1)), difference_db


def _level_db(edge: np.ndarray | None, means: np.ndarray, power: float) -> float | None:
    """Level of an edge against the whole, both without their offset."""
    if edge is None or edge.size == 0 or power <= 0:
        return None
    edge_power = float(np.mean((edge - means) ** 2))
    return 10 * math.log10(max(edge_power, 1e-12 * power) / power)
