"""How are beats counted into bars? Beats a bar, and which beats begin one.

Conventions: a bar has three or four beats or is not known; beats are those of `beats.py`, in seconds.

Belongs here: what is heard from beat to beat. Does not: the beats themselves, sections of several bars (`structure.py`).

References
----------
.. [1] Gouyon, F. and Herrera, P. (2003), "Determination of the meter of musical audio signals: seeking recurrences in beat
   segment descriptors", AES 114.
.. [2] Davies, M. and Plumbley, M. (2006), "A spectral difference approach to downbeat extraction in musical audio", EUSIPCO.
.. [3] Papadopoulos, H. and Peeters, G. (2011), "Joint estimation of chords and downbeats from an audio signal", IEEE TASLP 19(1):
   chords change on downbeats. On 16 renders chroma and bass found 15 first downbeats, spectra and bass 12.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

MIN_BEATS = 13  # four bars of three and the beat after
MIN_MARGIN = 0.05  # of mean similarity between the two countings
BANDS = 32
LOW_BANDS = 10  # of 128 mel bands: up to about 270 Hz, bass and kick drum


def beat_levels(mel: Floats, edges_s: Floats, *, frame_rate_hz: float) -> Floats:
    """Mean level between neighbouring edges: beats, or any other division.

    Parameters
    ----------
    mel : np.ndarray [shape=(frames, bands), >= 0]
        Power mel spectrogram, not silent; the number of bands is a multiple of `BANDS`.
    edges_s : np.ndarray [shape=(n,), increasing]
        Times in seconds, n >= 2.
    frame_rate_hz : float
        Frames a second.

    Returns
    -------
    np.ndarray [shape=(n - 1, BANDS)]
        In dB, with a floor 60 dB below the loud frames.
    """
    edges = np.round(edges_s * frame_rate_hz).astype(int).clip(0, len(mel))
    edges = np.maximum.accumulate(np.minimum(edges, len(mel) - 1 - np.arange(edges.size)[::-1]))
    width = mel.shape[1] // BANDS
    bands = mel @ np.kron(np.eye(BANDS, dtype=mel.dtype), np.full((width, 1), 1 / width, mel.dtype))
    power = np.add.reduceat(bands, edges, axis=0)[:-1] / np.maximum(np.diff(edges), 1)[:, None]
    levels: Floats = 10 * np.log10(power + 1e-6 * np.percentile(power.sum(axis=1), 95))
    return levels


def beat_spectra(levels: Floats) -> Floats:
    """Standardise levels over the beats, so that no band outshouts the others; the shape stays."""
    spectra: Floats = (levels - levels.mean(axis=0)) / np.maximum(levels.std(axis=0), 0.4)
    return spectra


def beats_per_bar(spectra: Floats) -> int | None:
    """Beats a bar, from which lags repeat the beats' spectra [1]_.

    Three where beats resemble those 3, 6 and 9 later more than those 2, 4 and 8 later by `MIN_MARGIN`, four the other way round.

    Parameters
    ----------
    spectra : np.ndarray [shape=(beats, bands)]
        Of `beat_spectra`.

    Returns
    -------
    3, 4 or None
        None for fewer than `MIN_BEATS` beats or without a margin.
    """
    if len(spectra) < MIN_BEATS:
        return None
    power = float(np.mean(spectra**2))
    similarity = {lag: float(np.mean(spectra[lag:] * spectra[:-lag])) / power for lag in (2, 3, 4, 6, 8, 9)}
    margin = (similarity[3] + similarity[6] + similarity[9] - similarity[2] - similarity[4] - similarity[8]) / 3
    return None if abs(margin) < MIN_MARGIN else 3 if margin > 0 else 4


def harmonic_change(chroma: Floats, beats_s: Floats, *, chroma_rate_hz: float) -> Floats:
    """How much the pitch classes of the two beats from each beat on differ from those of the two before [2]_, [3]_.

    Parameters
    ----------
    chroma : np.ndarray [shape=(frames, 12)]
        Chromagram; frame i is centred at i / chroma_rate_hz seconds.
    beats_s : np.ndarray [shape=(n,), increasing]
        Beat times, n >= 4.
    chroma_rate_hz : float
        Chroma frames a second.

    Returns
    -------
    np.ndarray [shape=(n - 1,), >= 0]
        For each beat but the last; 0 for the first.
    """
    edges = (beats_s * chroma_rate_hz).astype(int).clip(0, len(chroma) - 1)
    sums = np.concatenate([np.zeros((1, chroma.shape[1])), np.cumsum(chroma, axis=0)])
    means = (sums[np.maximum(edges[1:], edges[:-1] + 1)] - sums[edges[:-1]]) / np.maximum(np.diff(edges), 1)[:, None]
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-9)
    after = (means + np.concatenate([means[1:], means[-1:]])) / 2
    before = np.concatenate([means[:1], means[:1], (means[:-2] + means[1:-1]) / 2])
    change: Floats = np.abs(after - before).mean(axis=1)
    change[0] = 0.0
    return change


def low_attack(flux: Floats, beats_s: Floats, *, frame_rate_hz: float) -> Floats:
    """Strength of the attack of bass and kick drum at each beat, the best of two frames to either side.

    Parameters
    ----------
    flux : np.ndarray [shape=(frames, bands), >= 0]
        Of `onsets.band_flux`.
    beats_s : np.ndarray [shape=(n,)]
        Beat times.
    frame_rate_hz : float
        Frames a second.

    Returns
    -------
    np.ndarray [shape=(n,), >= 0]
    """
    low = flux[:, :LOW_BANDS].sum(axis=1)
    frames = np.round(beats_s * frame_rate_hz).astype(int)[:, None] + np.arange(-2, 3)
    strongest: Floats = low[frames.clip(0, len(low) - 1)].max(axis=1)
    return strongest


def first_downbeat(change: Floats, attack: Floats, *, beats_in_bar: int) -> int:
    """Number of the first beat that begins a bar: where harmony changes and the bass attacks most, on average over the bars.

    Parameters
    ----------
    change, attack : np.ndarray [shape=(beats,)]
        Of `harmonic_change` and `low_attack`.
    beats_in_bar : int
        3 or 4.

    Returns
    -------
    int
        In [0, beats_in_bar).
    """
    strength = _standard(change) + _standard(attack)
    strength[0] = 0.0  # the first sound of a file is always new
    return int(np.argmax([strength[phase::beats_in_bar].mean() for phase in range(beats_in_bar)]))


def _standard(values: Floats) -> Floats:
    spread: Floats = (values - values.mean()) / max(float(values.std()), 1e-9)
    return spread
