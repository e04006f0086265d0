"""Between which pitches does the voice move? The range of the voiced frames inside the vocal segments.

Conventions: YIN's cumulative mean normalised difference [1]_, its difference taken from the autocorrelation of a windowed frame,
divided by the window's own [2]_, within `BAND_HZ`: there a bass and a drum have little, and a voice its formants. A frame has a
pitch where the first dip is deep enough, and is a voice's where the lowest harmonics are there (the common period of a chord has
none), and where it belongs to a run that moves as voices do: an instrument holds a note
within a cent or two from frame to frame, a voice is never that steady [3]_. What lies far over an octave from the middle is
another's, or an error of an octave [4]_. Where too few frames are left to stand for the take, the range is None.

Limits: a solo that slides or vibrates as a voice does (trumpet, strings) is taken for one; a voice tuned flat, without harmonics,
or without its first one (a telephone's) is not. Accompaniment hides quiet notes at the ends: as loud as the voice, it makes the
range narrower by up to 3 semitones, rarely wider; in a dense mix there is none.

Belongs here: the pitch of a voice. Does not: where somebody sings (`vocals.py`), notes of instruments, the key.

References
----------
.. [1] de Cheveigné, A. & Kawahara, H. (2002), "YIN, a fundamental frequency estimator for speech and music", JASA 111(4).
.. [2] Boersma, P. (1993), "Accurate short-term analysis of the fundamental frequency and the harmonics-to-noise ratio of a
   sampled sound", IFA Proceedings 17.
.. [3] Rao, V. & Rao, P. (2010), "Vocal melody extraction in the presence of pitched accompaniment in polyphonic music", IEEE
   TASLP 18(8): a voice is told from instruments by how unsteady its harmonics are.
.. [4] Salamon, J. & Gómez, E. (2012), "Melody extraction from polyphonic music signals using pitch contour characteristics", IEEE
   TASLP 20(6).
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Floats = NDArray[np.floating]

FRAME_S, HOP_S = 0.064, 0.02
LOWEST_HZ, HIGHEST_HZ = 80.0, 1050.0  # below a bass singer's E2 (82 Hz) basses play, above a soprano's C6 (1,047 Hz) few sing
BAND_HZ = (200.0, 2000.0)
DEEPEST_DIP = 0.2  # at 0.1, which is for bare voices [1]_, so few frames of mixes are left that 27 of 66 ranges were right
SHALLOWER = 0.1  # than the deepest: what a first dip may be; more took a strong second harmonic for the pitch
LEAST_BAND_SHARE = 0.2  # of the frame's power
HARMONIC_DB = (-15.0, -20.0, -25.0)  # the first three, below the strongest of five
RUN_FRAMES = 5
LARGEST_STEP = 1.0  # semitones from frame to frame; a vibrato of a semitone to either side stays below 0.7
LEAST_UNREST = 0.04  # semitones a frame, mean of a run: over 0.068 in 95 of 100 runs sung alone, under 0.035 in 75 of 100 played
FARTHEST = 14.0  # semitones from the median
LEAST_VOICED_S = 1.0
LEAST_VOICED_SHARE = 0.1  # of the segments: of 17 ranges made from fewer frames of mixes 2 were right, of 111 from more 85
LIMITS = (5.0, 50.0, 95.0)  # percentiles
BLOCK_FRAMES = 256  # about 5 MB at work; larger ones took up to twice the time


def voiced_range(mono: Floats, segments_s: Sequence[Sequence[float]], *, sample_rate_hz: int) -> dict[str, float | None]:
    """Measure the pitches that the voice keeps within.

    Parameters
    ----------
    mono : np.ndarray [shape=(n,), float32, full scale 1]
    segments_s : sequence of pairs
        Start and end of each vocal segment in seconds, in order; only frames wholly inside one are looked at.
    sample_rate_hz : int
        At least 8,000; the bands and thresholds were measured at 16,000.

    Returns
    -------
    dict
        `voiced_low_hz`, `voiced_median_hz` and `voiced_high_hz` (percentiles 5, 50 and 95 of the voiced frames, in `LOWEST_HZ` to
        `HIGHEST_HZ`; None with less than `LEAST_VOICED_S` or `LEAST_VOICED_SHARE` of voiced frames) and `voiced_s`, the seconds
        of voiced frames, >= 0.
    """
    places = [(max(0, round(start_s * sample_rate_hz)), round(end_s * sample_rate_hz)) for start_s, end_s in segments_s]
    tracks = [pitch_track(mono[start:end], sample_rate_hz=sample_rate_hz) for start, end in places]
    voiced_hz = np.concatenate([np.empty(0), *(pitch_hz[is_sung(pitch_hz)] for pitch_hz in tracks)])
    if voiced_hz.size:
        voiced_hz = voiced_hz[np.abs(12 * np.log2(voiced_hz / np.median(voiced_hz))) <= FARTHEST]
    voiced_s = voiced_hz.size * HOP_S
    is_enough = voiced_s >= LEAST_VOICED_S and voiced_hz.size >= LEAST_VOICED_SHARE * sum(map(len, tracks))
    low, median, high = map(float, np.percentile(voiced_hz, LIMITS)) if is_enough else (None, None, None)
    return {"voiced_low_hz": low, "voiced_median_hz": median, "voiced_high_hz": high, "voiced_s": voiced_s}


def pitch_track(samples: Floats, *, sample_rate_hz: int) -> Floats:
    """Pitch of every frame by itself.

    Parameters
    ----------
    samples : np.ndarray [shape=(n,), float32]
    sample_rate_hz : int

    Returns
    -------
    np.ndarray [shape=(frames,)]
        Of each frame of `FRAME_S`, one every `HOP_S`, the first beginning with the samples; NaN where it has none.
    """
    frame, hop = round(FRAME_S * sample_rate_hz), round(HOP_S * sample_rate_hz)
    if samples.size < frame:
        return np.empty(0)
    frames = np.lib.stride_tricks.sliding_window_view(samples, frame)[::hop]
    blocks = (frames[start : start + BLOCK_FRAMES] for start in range(0, len(frames), BLOCK_FRAMES))
    return np.concatenate([_pitch_of(block, sample_rate_hz) for block in blocks])


def is_sung(pitch_hz: Floats) -> NDArray[np.bool_]:
    """Whether each frame belongs to a run of `RUN_FRAMES` or more, without jumps, that moves as a voice does [3]_.

    Parameters
    ----------
    pitch_hz : np.ndarray [shape=(frames,)]
        NaN where there is none.
    """
    steps = np.abs(np.diff(12 * np.log2(pitch_hz)))
    is_next = steps <= LARGEST_STEP  # never beside a frame without pitch
    run = np.cumsum(np.concatenate([[0], ~is_next]))[: pitch_hz.size]
    inside = np.bincount(run[1:][is_next], minlength=run.size + 1)
    moved = np.bincount(run[1:][is_next], weights=steps[is_next], minlength=run.size + 1)
    is_voice = (inside >= RUN_FRAMES - 1) & (moved >= LEAST_UNREST * inside)
    sung: NDArray[np.bool_] = is_voice[run]
    return sung


@cache
def _tables(sample_rate_hz: int) -> tuple[int, Floats, Floats]:
    """Length of the transform; window; and what takes power to autocorrelation, weighing the band: shape (bins, lags)."""
    frame = round(FRAME_S * sample_rate_hz)
    lags = np.arange(int(sample_rate_hz / LOWEST_HZ) + 2)
    length = scipy.fft.next_fast_len(frame + lags.size, real=True)
    window = np.hanning(frame + 2)[1:-1]
    low_hz, high_hz = BAND_HZ
    hz = np.fft.rfftfreq(length, 1 / sample_rate_hz)
    hz = hz[hz < 2 * high_hz]
    weight = hz**4 / (hz**4 + low_hz**4) / (1 + (hz / high_hz) ** 8)  # of power: Butterworth's, of second and fourth order
    own = np.correlate(window, window, "full")[frame - 1 :][: lags.size]
    table = np.cos(2 * np.pi / sample_rate_hz * np.outer(hz, lags)) * weight[:, None] * own[0] / own
    return length, window.astype(np.float32), table.astype(np.float32)


def _pitch_of(frames: Floats, sample_rate_hz: int) -> Floats:
    """Pitch of a block of frames, as `pitch_track`."""
    length, window, table = _tables(sample_rate_hz)
    spectrum = scipy.fft.rfft(frames * window, length)
    power = spectrum.real**2 + spectrum.imag**2
    correlation = power[:, : len(table)] @ table
    in_band = correlation[:, 0]
    difference = 1 - correlation / np.maximum(in_band, 1e-20)[:, None]
    shortest = int(sample_rate_hz / HIGHEST_HZ)
    lags = np.arange(1, len(table[0]), dtype=np.float32)
    dips = np.ones_like(difference)
    dips[:, 1:] = difference[:, 1:] * lags / np.maximum(np.cumsum(difference[:, 1:], axis=1), 1e-9)
    middle = dips[:, shortest:-1]
    deep = np.minimum(middle.min(axis=1, keepdims=True) + SHALLOWER, DEEPEST_DIP)
    is_dip = (middle < deep) & (middle < dips[:, shortest - 1 : -2]) & (middle <= dips[:, shortest + 1 :])
    row = np.flatnonzero(is_dip.any(axis=1) & (in_band >= LEAST_BAND_SHARE * power.sum(axis=1)))
    lag = shortest + np.argmax(is_dip[row], axis=1)  # the first: what follows are its multiples
    left, here, right = (dips[row, lag + shift] for shift in (-1, 0, 1))
    found_hz = sample_rate_hz / (lag + 0.5 * (left - right) / np.maximum(left - 2 * here + right, 1e-9))
    pitch_hz = np.full(len(frames), np.nan)
    pitch_hz[row] = np.where(_has_harmonics(power[row], found_hz * length / sample_rate_hz), found_hz, np.nan)
    return pitch_hz


def _has_harmonics(power: Floats, bins: Floats) -> NDArray[np.bool_]:
    """Whether the first harmonics of a pitch, at multiples of a place in bins, stand out as `HARMONIC_DB` asks."""
    place = np.round(bins[:, None] * np.arange(1, 6)).astype(int)[:, :, None] + np.arange(-1, 2)
    peaks = power[np.arange(len(power))[:, None, None], np.minimum(place, power.shape[1] - 1)].max(axis=2)
    least = peaks.max(axis=1, keepdims=True) * 10 ** (np.array(HARMONIC_DB) / 10)
    there: NDArray[np.bool_] = (peaks[:, :3] >= least).all(axis=1)
    return there
