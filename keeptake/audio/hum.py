"""Does the mains hum in it? Lines at multiples of 50 or 60 Hz that never stop.

Conventions: hum is there in quiet frames too, so it is looked for in the level that each frequency keeps in nine frames of ten
(the low quantile of minimum statistics [1]_): notes that come and go leave nothing there. What remains must be narrow lines at
multiples of one mains frequency, `LEAST_LINES` of them [2]_: a drone of another pitch has its lines elsewhere. A bass tuned to 50
or 60 Hz itself (35 cents above G1, 51 above A#1) whose rests are shorter than a frame of 0.37 s is called hum.

Belongs here: mains hum. Does not: other noise.

References
----------
.. [1] Martin, R. (2001), "Noise power spectral density estimation based on optimal smoothing and minimum statistics", IEEE TSAP
   9(5).
.. [2] Brandt, M. & Bitzer, J. (2014), "Automatic detection of hum in audio signals", J. AES 62(9): hum as lines that
   last.
"""

import numpy as np

from keeptake.audio.frontend import LONG_FFT, LONG_HOP, SAMPLE_RATE_HZ

MAINS_HZ = (50.0, 60.0)
HARMONICS = 8
LEAST_LINES = 3
SHORTEST_S = 5.0  # 27 frames: of fewer the quantile is one of them
KEPT_QUANTILE = 0.1  # at 0.05 notes that beat against the hum hid 8 of 45 planted ones
PROMINENCE_DB = 10.0  # of a line over the median of its surroundings
AROUND_BINS, LINE_BINS = 12, 3  # 32 Hz to either side, without the line's own main lobe
LINE_TOLERANCE_HZ = 0.6  # of a line from its multiple: reading between bins of 2.7 Hz errs by that, beside a bass note
MAINS_TOLERANCE_HZ = 0.3  # of the mains: grids keep within 0.2 Hz
HUM_DBFS = -70.0  # from here it is flagged: 50 dB below music at a usual level, still heard in its pauses


def mains_hum(magnitude: np.ndarray) -> dict[str, float | bool | None]:
    """Find mains hum.

    Parameters
    ----------
    magnitude : np.ndarray [shape=(frames, 4097), float32]
        The long transform.

    Returns
    -------
    dict
        `hum_hz` (50, 60 or None), `hum_level_dbfs` (root mean square of its lines, a full-scale sine at -3.01; None without hum)
        and `has_hum`, from `HUM_DBFS` on.
    """
    best: tuple[int, float, float] | None = None
    if len(magnitude) * LONG_HOP >= SHORTEST_S * SAMPLE_RATE_HZ:
        bins = int(max(MAINS_HZ) * HARMONICS * LONG_FFT / SAMPLE_RATE_HZ) + 2 * AROUND_BINS
        inside = magnitude[1:-1, :bins]  # the first and last frame reach beyond the ends
        rank = int(KEPT_QUANTILE * len(inside))
        kept = np.partition(inside, rank, axis=0)[rank]
        best = max((*steady_lines(kept, mains_hz), mains_hz) for mains_hz in MAINS_HZ)
    if best is None or best[0] < LEAST_LINES:
        return {"hum_hz": None, "hum_level_dbfs": None, "has_hum": False}
    _, power, mains_hz = best
    level_dbfs = float(10 * np.log10(power))
    return {"hum_hz": mains_hz, "hum_level_dbfs": level_dbfs, "has_hum": level_dbfs >= HUM_DBFS}


def steady_lines(kept: np.ndarray, mains_hz: float) -> tuple[int, float]:
    """Count the lines of one mains frequency.

    Parameters
    ----------
    kept : np.ndarray [shape=(bins,)]
        Magnitude of the long transform that each bin keeps.
    mains_hz : float

    Returns
    -------
    (lines, power)
        How many of `HARMONICS`; and their mean square together, full scale being 1.
    """
    level_db = 20 * np.log10(np.maximum(kept.astype(np.float64), 1e-9))
    hz_a_bin = SAMPLE_RATE_HZ / LONG_FFT
    lines = [line for k in range(1, HARMONICS + 1) if (line := _line(level_db, k * mains_hz / hz_a_bin)) is not None]
    hz = [(round(place * hz_a_bin / mains_hz), place * hz_a_bin, line_db) for place, line_db in lines]
    near = [(number, at_hz, line_db) for number, at_hz, line_db in hz if abs(at_hz - number * mains_hz) <= LINE_TOLERANCE_HZ]
    if not near or abs(float(np.median([at_hz / number for number, at_hz, _ in near])) - mains_hz) > MAINS_TOLERANCE_HZ:
        return 0, 0.0
    amplitude = 4 / LONG_FFT * 10 ** (np.array([line_db for *_, line_db in near]) / 20)  # a Hann window passes half of the sum
    return len(near), float(np.sum(amplitude**2 / 2))


def _line(level_db: np.ndarray, place: float) -> tuple[float, float] | None:
    """Place in bins and level of a prominent peak next to a place, at the vertex of the parabola through it."""
    middle = round(place)
    peak = middle - 1 + int(np.argmax(level_db[middle - 1 : middle + 2]))
    left, here, right = level_db[peak - 1 : peak + 2]
    if here < left or here < right:
        return None
    below, above = (
        level_db[max(1, peak - AROUND_BINS) : peak - LINE_BINS + 1],
        level_db[peak + LINE_BINS : peak + AROUND_BINS + 1],
    )
    around = np.concatenate([below, above])
    if here - np.median(around) < PROMINENCE_DB:
        return None
    shift = 0.5 * (left - right) / min(left - 2 * here + right, -1e-6)
    return peak + shift, here - 0.25 * (left - right) * shift
