"""How strong is it to the ear? K-weighted power, a step of 100 ms at a time, before any gate.

Conventions: the weighting is the standard's recursive filter [1]_, applied by its impulse response: that has died away after some
hundredths of a second, and each step comes out of one transform that holds the step and what came before it (overlap-save). In
single precision this takes three quarters of the time of the recursion in double precision.

Belongs here: the filter and the power behind it. Does not: gates, ranges and peaks (`loudness.py`).

References
----------
.. [1] ITU-R BS.1770-5 (2023), "Algorithms to measure audio programme loudness and true-peak audio level".
.. [2] De Man, B. (2018), "Evaluation of implementations of the EBU R128 loudness measurement", AES e-Brief 433: the K-weighting
   as a function of the sample rate.
"""

import math
from functools import lru_cache

import numpy as np
import scipy.fft
from scipy.signal import sosfilt

STEP_S = 0.1  # gating blocks of 400 ms overlap by 75 %: they are sums of four steps
# Weights of the channels in file order; further channels and the bass-effects channel of 5.1 do not count [1]_.
CHANNEL_WEIGHTS = {5: (1.0, 1.0, 1.0, 1.41, 1.41), 6: (1.0, 1.0, 1.0, 0.0, 1.41, 1.41)}
LEAST_RESPONSE = 1e-6  # of the highest: where the impulse response ends
LONGEST_RESPONSE_S = 1.0
LOWEST_SHELF_RATE_HZ = 4000  # the shelf's middle is at 1,682 Hz; from half the rate on its poles lie outside of the circle
STEPS_AT_ONCE = 8  # their transforms stay near the processor


class WeightedPower:
    """Mean square behind the weighting of every whole step of a stream.

    Parameters
    ----------
    sample_rate_hz : int
        Rate of the blocks.
    channels : int
        Their number of channels.
    """

    def __init__(self, sample_rate_hz: int, channels: int) -> None:
        self._weights = CHANNEL_WEIGHTS.get(channels, (1.0,) * channels)
        self._filter = StepFilter(sample_rate_hz, is_complex=channels == 2)
        self._held = np.zeros((self._filter.memory, channels), np.float32)  # what the filter still rings of, and the step begun
        self._powers: list[np.ndarray] = []

    def add(self, block: np.ndarray) -> None:
        """Take in one block of shape (n, channels), float32."""
        step, memory = self._filter.step, self._filter.memory
        for start in range(0, len(block), STEPS_AT_ONCE * step):
            samples = np.concatenate([self._held, block[start : start + STEPS_AT_ONCE * step]])
            steps = (len(samples) - memory) // step
            self._held = samples[steps * step :]
            if steps:
                self._powers.append(self._power(samples))

    def values(self) -> np.ndarray:
        """Return the power of all channels together, shape (steps,)."""
        return np.concatenate(self._powers) if self._powers else np.zeros(0)

    def _power(self, samples: np.ndarray) -> np.ndarray:
        if samples.shape[1] == 2:  # one complex signal: a filter of real taps keeps its parts apart
            return self._filter.mean_squares(samples.view(np.complex64)[:, 0])
        squares = [self._filter.mean_squares(np.ascontiguousarray(channel)) for channel in samples.T]
        power: np.ndarray = np.dot(self._weights, squares)
        return power


class StepFilter:
    """The weighting of one signal, and its mean squares.

    Attributes
    ----------
    step, memory : int
        Samples of a step, and how many before it are still heard in it.
    """

    def __init__(self, sample_rate_hz: int, *, is_complex: bool) -> None:
        response = impulse_response(sample_rate_hz)
        self.memory, self.step = len(response) - 1, round(STEP_S * sample_rate_hz)
        self._size = scipy.fft.next_fast_len(self.memory + self.step, real=not is_complex)
        self._forth, self._back = (scipy.fft.fft, scipy.fft.ifft) if is_complex else (scipy.fft.rfft, scipy.fft.irfft)
        self._response = self._forth(response, self._size)

    def mean_squares(self, samples: np.ndarray) -> np.ndarray:
        """Of each whole step, shape (steps,); the filter's memory comes before the first."""
        frames = np.lib.stride_tricks.sliding_window_view(samples, self.memory + self.step)[:: self.step]
        spectrum = self._forth(frames, self._size)
        spectrum *= self._response
        weighted = self._back(spectrum, self._size)[:, self.memory : self.memory + self.step].view(np.float32)
        return np.asarray(np.einsum("ij,ij->i", weighted, weighted), np.float64) / self.step


@lru_cache(maxsize=8)  # a stranger chooses the rates
def impulse_response(sample_rate_hz: int) -> np.ndarray:
    """Response of the K-weighting as far as it reaches `LEAST_RESPONSE`, shape (taps,), float32; it adds up to nothing."""
    impulse = np.zeros(round(LONGEST_RESPONSE_S * sample_rate_hz))
    impulse[0] = 1
    response = sosfilt(k_weighting(sample_rate_hz), impulse)
    response = response[: np.flatnonzero(np.abs(response) >= LEAST_RESPONSE * np.abs(response).max())[-1] + 1]
    taps: np.ndarray = (response - response.mean()).astype(np.float32)
    return taps


def k_weighting(sample_rate_hz: int) -> np.ndarray:
    """Second-order sections of the K-weighting: a shelf for the head, a high pass for low frequencies.

    Parameters
    ----------
    sample_rate_hz : int
        The standard's table is the case of 48,000 [2]_. Below `LOWEST_SHELF_RATE_HZ` the shelf lies beyond what a file holds (and
        its filter is none): the high pass stands alone.

    Returns
    -------
    np.ndarray [shape=(2, 6) or (1, 6), float64]
    """
    k, q = math.tan(math.pi * 38.13547087602444 / sample_rate_hz), 0.5003270373238773
    a0 = 1 + k / q + k * k
    high_pass = [1, -2, 1, 1, 2 * (k * k - 1) / a0, (1 - k / q + k * k) / a0]
    if sample_rate_hz < LOWEST_SHELF_RATE_HZ:
        return np.array([high_pass])
    shelf_gain = 10 ** (3.999843853973347 / 20)
    k, q = math.tan(math.pi * 1681.974450955533 / sample_rate_hz), 0.7071752369554196
    corner_gain = shelf_gain**0.4996667741545416
    a0 = 1 + k / q + k * k
    shelf = [
        (shelf_gain + corner_gain * k / q + k * k) / a0,
        2 * (k * k - shelf_gain) / a0,
        (shelf_gain - corner_gain * k / q + k * k) / a0,
        1,
        2 * (k * k - 1) / a0,
        (1 - k / q + k * k) / a0,
    ]
    return np.array([shelf, high_pass])
