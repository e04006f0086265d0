"""When does something begin? The onset envelope, and the onsets picked from it.

Conventions: the input is a power mel spectrogram (frames, bands), float32, frame i centred at i / frame_rate_hz seconds. The
envelope has one value a frame, >= 0, and does not depend on the gain of the file.

Belongs here: everything that answers "is this an attack?". Does not: periodicity (`tempo.py`), choosing beats (`beats.py`).

References
----------
.. [1] Böck, S. and Widmer, G. (2013), "Maximum filter vibrato suppression for onset detection", DAFx.
.. [2] Böck, S., Krebs, F. and Schedl, M. (2012), "Evaluating the online capabilities of onset detection methods", ISMIR.
"""

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

Floats = NDArray[np.floating]

SILENCE_POWER = 1e-7  # loudest mel power of a file that counts as silent: noise at -80 dBFS stays two decades below
COMPRESSION = 1e3  # log(1 + COMPRESSION * magnitude), magnitude relative to the loud frames; 1e1 to 1e3 rank alike on the dev set
LAG_FRAMES = 2  # the difference spans about half a window, as [1] advises
PICK_THRESHOLD = 0.08  # of the envelope's 99th percentile, above the mean of AROUND_S
AROUND_S = 0.2
APART_S = 0.03  # [2]: onsets closer than this are one


def is_silent(mel: Floats) -> bool:
    """Whether the loudest cell of a mel power spectrogram lies below `SILENCE_POWER`."""
    return mel.size == 0 or not float(mel.max()) > SILENCE_POWER


def onset_envelope(mel: Floats) -> Floats:
    """Rise of log-compressed energy, against the loudest neighbouring band a little earlier (SuperFlux).

    Parameters
    ----------
    mel : np.ndarray [shape=(frames, bands), float32, >= 0]
        Power mel spectrogram, not silent.

    Returns
    -------
    np.ndarray [shape=(frames,), float32, >= 0]
        Summed over the bands; the first `LAG_FRAMES` values are measured against silence.

    References
    ----------
    [1]_
    """
    envelope: Floats = band_flux(mel).sum(axis=1)
    return envelope


def band_flux(mel: Floats) -> Floats:
    """Return the same rise band by band, shape (frames, bands)."""
    level = np.sqrt(mel)
    loud = np.percentile(level.max(axis=1), 95)
    level *= np.float32(COMPRESSION / max(loud, 1e-12))
    level += 1
    np.log(level, out=level)  # numpy has `log` in vector instructions, `log1p` not
    earlier = np.concatenate([np.zeros((LAG_FRAMES, level.shape[1]), np.float32), level[:-LAG_FRAMES]])
    highest = earlier.copy()
    np.maximum(highest[:, 1:], earlier[:, :-1], out=highest[:, 1:])
    np.maximum(highest[:, :-1], earlier[:, 1:], out=highest[:, :-1])
    flux: Floats = np.subtract(level, highest, out=level)
    return np.maximum(flux, 0, out=flux)


def onset_times(envelope: Floats, *, frame_rate_hz: float) -> Floats:
    """Pick onsets: local maxima that stand out from their surroundings.

    Parameters
    ----------
    envelope : np.ndarray [shape=(frames,), >= 0]
        Onset envelope.
    frame_rate_hz : float
        Frames a second.

    Returns
    -------
    np.ndarray [shape=(n,), float64, increasing]
        Times in seconds.

    References
    ----------
    [2]_
    """
    if envelope.size < 3:
        return np.zeros(0)
    around = scipy.ndimage.uniform_filter1d(envelope, max(1, round(AROUND_S * frame_rate_hz)))
    apart = max(1, round(APART_S * frame_rate_hz))
    highest = scipy.ndimage.maximum_filter1d(envelope, 2 * apart + 1)
    stands_out = envelope >= around + PICK_THRESHOLD * np.percentile(envelope, 99)
    frames = np.flatnonzero((envelope == highest) & stands_out & (envelope > 0))
    times: Floats = frames / frame_rate_hz
    return times
