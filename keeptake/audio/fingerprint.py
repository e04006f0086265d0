"""Is it the same recording? A code word for every tenth of a second, which survives what copies go through.

The spectrum from 110 to 3520 Hz is folded into 24 pitch classes a quarter tone apart. A code word holds two bits a pitch class:
whether its energy rises, and whether it rises more than that of the pitch class a semitone above. Signs of differences do not
move with gain or with an encoder, and a transposed copy has the same bits, rotated round the circle of pitch classes: a copy a
semitone up is two steps away, one played 3 % faster one step.

Conventions: mono samples in, one uint64 a frame out, of which the lower 48 bits are used; pitch class 0 in the lowest two. Code
0 marks a frame that tells nothing (silence, or a sound that stands still); no other frame has it, for the differences round a
circle cannot all be negative. Frame i stands for the samples around `(i + 5) · FRAME_S + WINDOW_S / 2` seconds. A bit error is a
share in [0, 1], 0.5 for unrelated sound.

Belongs here: samples to code words, and how two code words compare. Does not: which of many takes are copies
(`curation/duplicates.py`).
"""

from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from keeptake.audio.samples import HIGHEST_SAMPLE
from keeptake.errors import InvalidAudioError

FINGERPRINT_VERSION = "chroma48-1"

FRAME_S = 0.1
WINDOW_S = 0.37
BINS = 24  # pitch classes in an octave; with 12 a speed change of 3 % (half a semitone) falls between two of them
BITS = 2 * BINS
LOWEST_HZ = 110.0  # below, a quarter tone is narrower than the window resolves
OCTAVES = 5
SMOOTHING_FRAMES = 5
LAG_FRAMES = 3
EDGE_FRAMES = SMOOTHING_FRAMES // 2 + LAG_FRAMES  # frames that smoothing and differences cost at either end

COMPRESSION = 0.25  # exponent of the energy; 0.15 and 0.4 gave higher bit errors under noise and pitch changes
SILENCE_POWER = 1e-7  # mean square of the band, -70 dB re full scale: below it a codec writes its own noise
SILENCE_BELOW_PEAK = 1e-6
STANDSTILL = 0.005  # relative change of the compressed energy, about 0.1 dB: below it signs are rounding noise

_CODE = np.uint64((1 << BITS) - 1)
Codes = NDArray[np.uint64]


def fingerprint(mono: NDArray[np.float32], sample_rate_hz: int) -> Codes:
    """Turn samples into code words.

    Parameters
    ----------
    mono : np.ndarray [shape=(n,), float, full scale 1]
        Samples of one channel. A mean of opposite channels is silence: choose the downmix with care.
    sample_rate_hz : int
        Samples a second (> 0). The window is a length of time, so the rate needs no conversion: rates agree in their codes.

    Returns
    -------
    np.ndarray [shape=(frames,), uint64]
        One code word for each `FRAME_S`; none for less than about 1.4 s of sound.

    Raises
    ------
    InvalidAudioError
        If the samples are not one finite channel or the rate is not positive.

    References
    ----------
    .. [1] Haitsma, J. and Kalker, T. (2002), "A highly robust audio fingerprinting system", ISMIR.
    """
    if mono.ndim != 1:
        raise InvalidAudioError(f"one channel is fingerprinted at a time, got samples of shape {mono.shape}")
    if sample_rate_hz <= 0:
        raise InvalidAudioError(f"a sampling rate is positive, got {sample_rate_hz} Hz")
    if not (np.abs(mono) <= HIGHEST_SAMPLE).all():
        raise InvalidAudioError(f"samples must be finite and at most {HIGHEST_SAMPLE:g}, got NaN, infinity or more")
    chroma, power = _chroma(mono, sample_rate_hz)
    codes = code_words(chroma)
    if len(codes):
        loud = power >= max(SILENCE_POWER, SILENCE_BELOW_PEAK * float(power.max()))
        codes[~loud[EDGE_FRAMES:-EDGE_FRAMES]] = 0
    return codes


def code_words(chroma: NDArray[np.float32]) -> Codes:
    """Signs of the changes in a chromagram of shape (n, 24); `EDGE_FRAMES` fewer code words than frames at either end."""
    if len(chroma) <= 2 * EDGE_FRAMES:
        return np.zeros(0, np.uint64)
    smooth = _moving_mean(chroma, SMOOTHING_FRAMES)
    rise = smooth[2 * LAG_FRAMES :] - smooth[: -2 * LAG_FRAMES]
    rise_over_next = rise - np.roll(rise, -2, axis=1)
    places = np.arange(BINS, dtype=np.uint64) * np.uint64(2)
    pairs = (rise > 0).astype(np.uint64) | ((rise_over_next > 0).astype(np.uint64) << np.uint64(1))
    codes: Codes = np.bitwise_or.reduce(pairs << places, axis=1)
    level = smooth[LAG_FRAMES:-LAG_FRAMES].max(axis=1)
    codes[np.abs(rise).max(axis=1) <= STANDSTILL * level] = 0
    return codes


def rotate(codes: Codes, steps: int | NDArray[np.int64]) -> Codes:
    """Transpose code words by `steps` quarter tones upwards, round the circle of 24 pitch classes."""
    by = np.uint64(2) * (np.asarray(steps) % BINS).astype(np.uint64)
    return ((codes << by) | (codes >> (np.uint64(BITS) - by))) & _CODE


def differing_bits(a: Codes, b: Codes) -> NDArray[np.int64]:
    """Count the bits in which code words differ, 0 to 48; -1 where one of the two tells nothing."""
    return np.where((a != 0) & (b != 0), np.bitwise_count(a ^ b).astype(np.int64), -1)


def _chroma(mono: NDArray[np.float32], sample_rate_hz: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compressed energy of each pitch class, shape (frames, 24), and the band's mean square, shape (frames,)."""
    window = round(WINDOW_S * sample_rate_hz)
    if window < 2 or len(mono) < window:
        return np.zeros((0, BINS), np.float32), np.zeros(0, np.float32)
    size = scipy.fft.next_fast_len(window, real=True)
    bands, taper = _bands(sample_rate_hz, size), np.hanning(window).astype(np.float32)
    starts = np.round(np.arange((len(mono) - window) / (FRAME_S * sample_rate_hz) + 1e-9) * FRAME_S * sample_rate_hz).astype(int)
    frames = np.lib.stride_tricks.sliding_window_view(mono, window)
    to_mean_square = np.float32(2 / (size * float(np.square(taper).sum())))
    chroma = np.empty((len(starts), BINS), np.float32)
    power = np.empty(len(starts), np.float32)
    for first in range(0, len(starts), 64):  # blocks keep the spectra of a ten-minute take out of memory
        block = slice(first, first + 64)
        spectra = scipy.fft.rfft(frames[starts[block]] * taper, size, axis=1)[:, : bands.shape[0]]
        energy = np.square(np.abs(spectra)) @ bands
        power[block] = energy.sum(axis=1) / 2 * to_mean_square  # neighbouring bands overlap: a partial is counted twice
        chroma[block] = (energy**COMPRESSION).reshape(-1, OCTAVES, BINS).sum(axis=1)
    return chroma, power


@lru_cache(maxsize=8)
def _bands(sample_rate_hz: int, size: int) -> NDArray[np.float32]:
    """Triangles a quarter tone apart and two semitones wide, shape (spectrum bins, bands)."""
    frequency_hz = np.arange(1, size // 2 + 1) * sample_rate_hz / size
    position = np.log2(frequency_hz / LOWEST_HZ) * BINS
    weight = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(OCTAVES * BINS)) / 2)
    used = int(np.searchsorted(position, OCTAVES * BINS + 1))
    return np.vstack([np.zeros((1, OCTAVES * BINS)), weight[:used]]).astype(np.float32)


def _moving_mean(rows: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    mean: NDArray[np.float32] = np.lib.stride_tricks.sliding_window_view(rows, width, axis=0).mean(axis=-1)
    return mean
