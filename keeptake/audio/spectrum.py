"""What does it sound like? Timbre: centroid, rolloff, bandwidth, flatness, MFCC, zero crossings, and where the top was cut.

Conventions: means over frames of the short transform, every `SHORT_STRIDE`th of them (a hop of 512 samples, as librosa's), by
librosa's definitions, so that `librosa.feature.*` on the same framing is the oracle of the tests. Frames further than
`FLOOR_DB` below the loudest do not count: the centroid of a pause is that of a codec's rounding.

Belongs here: the long-term spectrum in numbers. Does not: pitch (`tonal.py`).
"""

import numpy as np
import scipy.fft
from scipy.signal import get_window

from keeptake.audio.frontend import SAMPLE_RATE_HZ, SHORT_FFT, SHORT_STRIDE, Frontend

MFCC_COEFFICIENTS = 20
ROLLOFF_SHARE = 0.85
BINS_A_GROUP = 27  # of 513
FLOOR_DB = 80.0  # below the loudest nothing is heard: librosa's `top_db`

FRAMES_A_BATCH = 1024  # ten minutes at once would take 200 MB of temporary arrays

LIMIT_FFT = 2048
LIMIT_STRIDE = 2  # every other frame is enough of a long-term mean
LIMIT_DROP_DB = 24.0  # a filter's edge: codecs fall by 40 dB and more, instruments fade by a few decibels a kilohertz
LIMIT_GAP_HZ = 600.0
LIMIT_LOWEST_HZ = 2000.0


def timbre(heard: Frontend) -> dict[str, float | list[float]]:
    """Spectral statistics of a clip.

    Parameters
    ----------
    heard : Frontend

    Returns
    -------
    dict
        `spectral_centroid_hz`, `spectral_bandwidth_hz`, `spectral_rolloff_hz` (85 %), `spectral_flatness` in [0, 1],
        `zero_crossing_rate` (a sample, in [0, 1]), `mfcc_mean` and `mfcc_deviation` (20 each).

    References
    ----------
    .. [1] Peeters, G. (2004), "A large set of audio features for sound description", CUIDADO report.
    .. [2] Slaney, M. (1998), "Auditory Toolbox", for the mel scale of the MFCC.
    """
    mel = heard.mel[::SHORT_STRIDE]
    is_loud = _loud_frames(mel)
    frames: list[np.ndarray] = []
    for start in range(0, len(mel), FRAMES_A_BATCH):
        magnitude = heard.short[start : start + FRAMES_A_BATCH][is_loud[start : start + FRAMES_A_BATCH]]
        frames.append(np.stack([*centroid_and_bandwidth(magnitude), rolloff(magnitude), flatness(magnitude)]))
    centroid_hz, bandwidth_hz, rolloff_hz, flat = np.concatenate(frames, axis=1).mean(axis=1)
    mfcc = cepstrum(mel)[is_loud]
    return {
        "spectral_centroid_hz": float(centroid_hz),
        "spectral_bandwidth_hz": float(bandwidth_hz),
        "spectral_rolloff_hz": float(rolloff_hz),
        "spectral_flatness": float(flat),
        "zero_crossing_rate": zero_crossing_rate(heard.mono),
        "mfcc_mean": mfcc.mean(axis=0).tolist(),
        "mfcc_deviation": mfcc.std(axis=0).tolist(),
    }


def centroid_and_bandwidth(magnitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean frequency and its standard deviation under each spectrum.

    Parameters
    ----------
    magnitude : np.ndarray [shape=(frames, 513), float32, each frame with some energy]

    Returns
    -------
    (centroid_hz, bandwidth_hz) : np.ndarray [shape=(frames,)], both
    """
    bins = np.arange(magnitude.shape[1], dtype=np.float32)
    # Moments in bins relative to the middle keep the difference of squares exact enough in float32.
    middle = np.float32(magnitude.shape[1] // 2)
    moments = (magnitude @ np.stack([np.ones_like(bins), bins - middle, (bins - middle) ** 2], axis=1)).astype(np.float64)
    first, second = moments[:, 1] / moments[:, 0], moments[:, 2] / moments[:, 0]
    hz_a_bin = SAMPLE_RATE_HZ / SHORT_FFT
    return (first + middle) * hz_a_bin, np.sqrt(np.maximum(second - first**2, 0)) * hz_a_bin


def rolloff(magnitude: np.ndarray) -> np.ndarray:
    """Frequency below which `ROLLOFF_SHARE` of each spectrum's magnitude lies.

    Parameters
    ----------
    magnitude : np.ndarray [shape=(frames, 513), float32]

    Returns
    -------
    np.ndarray [shape=(frames,)]
        In hertz.
    """
    frames, bins = magnitude.shape
    # First by groups of bins, then within the one where it lies: summing up every bin takes four times as long.
    is_inside = np.kron(np.eye(bins // BINS_A_GROUP, dtype=np.float32), np.ones((BINS_A_GROUP, 1), np.float32))
    summed = np.cumsum(magnitude @ is_inside, axis=1, dtype=np.float64)
    asked = ROLLOFF_SHARE * summed[:, -1:]
    group = (summed < asked).sum(axis=1)
    before = np.where(group > 0, summed[np.arange(frames), group - 1], 0)
    inside = magnitude.reshape(frames, bins // BINS_A_GROUP, BINS_A_GROUP)[np.arange(frames), group]
    reached = group * BINS_A_GROUP + (before[:, None] + np.cumsum(inside, axis=1) < asked).sum(axis=1)
    result: np.ndarray = reached * (SAMPLE_RATE_HZ / SHORT_FFT)
    return result


def flatness(magnitude: np.ndarray) -> np.ndarray:
    """Geometric over arithmetic mean of each power spectrum: 1 for white noise, towards 0 for tones.

    Parameters
    ----------
    magnitude : np.ndarray [shape=(frames, 513), float32]

    Returns
    -------
    np.ndarray [shape=(frames,)]
    """
    power = np.maximum(magnitude * magnitude, 1e-10)
    result: np.ndarray = np.minimum(np.exp(np.log(power).mean(axis=1)) / power.mean(axis=1), 1)  # an impulse: 1.0000001
    return result


def cepstrum(mel: np.ndarray) -> np.ndarray:
    """MFCC of mel power: decibels, 80 dB below the loudest at the least, orthonormal DCT.

    Parameters
    ----------
    mel : np.ndarray [shape=(frames, 128), float32]

    Returns
    -------
    np.ndarray [shape=(frames, 20), float32]
    """
    decibels = 10 * np.log10(np.maximum(mel, 1e-10))
    decibels = np.maximum(decibels, decibels.max() - FLOOR_DB)
    result: np.ndarray = scipy.fft.dct(decibels, axis=1, norm="ortho")[:, :MFCC_COEFFICIENTS]
    return result


def zero_crossing_rate(mono: np.ndarray) -> float:
    """Share of samples at which the sign changes, in [0, 1]."""
    is_negative = mono < 0
    return float(np.count_nonzero(is_negative[1:] != is_negative[:-1]) / max(mono.size - 1, 1))


def _loud_frames(mel: np.ndarray) -> np.ndarray:
    power = mel.sum(axis=1)
    is_loud: np.ndarray = power > power.max() * 10 ** (-FLOOR_DB / 10)
    return is_loud


class BandwidthMeter:
    """Finds where a codec, a resampler or a model cut the top, at the file's own rate.

    Parameters
    ----------
    sample_rate_hz : int
        Rate of the blocks.
    """

    def __init__(self, sample_rate_hz: int) -> None:
        self._rate_hz = sample_rate_hz
        self._window = get_window("hann", LIMIT_FFT).astype(np.float32)
        self._power = np.zeros(1 + LIMIT_FFT // 2)

    def add(self, mono: np.ndarray) -> None:
        """Take in one block's mix, shape (n,), at the file's rate."""
        frames = mono[: mono.size // LIMIT_FFT * LIMIT_FFT].reshape(-1, LIMIT_FFT)[::LIMIT_STRIDE]
        bins = scipy.fft.rfft(frames * self._window).view(np.float32)
        bins *= bins
        self._power += (np.ones(len(bins), np.float32) @ bins).reshape(-1, 2).sum(axis=1)

    def limit_hz(self) -> float | None:
        """Frequency of the highest edge in the mean spectrum; half the rate where nothing was cut.

        The edge is where the mean level of `LIMIT_GAP_HZ` below exceeds that above by the most, if by `LIMIT_DROP_DB` or more,
        with nothing above that comes back.

        Returns
        -------
        float or None
            In hertz; None for a file without a whole frame of sound.

        References
        ----------
        .. [1] D'Alessandro, B. & Shi, Y. Q. (2009), "MP3 bit rate quality detection through frequency spectrum analysis".
        """
        if not self._power.any():
            return None
        decibels = 10 * np.log10(np.maximum(self._power, self._power.max() * 1e-16))
        hz_a_bin = self._rate_hz / LIMIT_FFT
        width = max(2, round(LIMIT_GAP_HZ / hz_a_bin))
        summed = np.concatenate([[0.0], np.cumsum(decibels)])
        edges = np.arange(width, decibels.size - width)
        below = (summed[edges] - summed[edges - width]) / width
        above = (summed[edges + width] - summed[edges]) / width
        highest_after = np.maximum.accumulate(above[::-1])[::-1]
        drop = np.where(edges * hz_a_bin >= LIMIT_LOWEST_HZ, below - highest_after, 0)
        if drop.size == 0 or drop.max() < LIMIT_DROP_DB:
            return self._rate_hz / 2
        return float(edges[np.argmax(drop)] * hz_a_bin)
