"""In which key is it? Tuning, pitch-class profile and key.

Conventions: a key is a tonic and a mode, "A minor"; tonics are spelt C, C#, D, Eb, E, F, F#, G, Ab, A, Bb, B. Chroma has 12
values from C, the strongest being 1. A key is null, never a guess, where the sound has no pitch classes to speak of (drums,
noise, speech) or fewer than three (a tone, a drone): see `tonality`.

Belongs here: what the long transform says about pitch classes. Does not: timbre (`spectrum.py`).

References
----------
.. [1] Gómez, E. (2006), "Tonal description of polyphonic audio for music content processing", INFORMS J. Computing 18(3): the
   harmonic pitch-class profile from spectral peaks.
.. [2] Müller, M. & Ewert, S. (2011), "Chroma Toolbox", ISMIR: logarithmic compression of chroma.
.. [3] Faraldo, Á., Jordà, S. & Herrera, P. (2017), "A multi-profile method for key estimation in EDM", AES Conference on Semantic
   Audio: the profiles `bgate`.
.. [4] Davis, M. (2006), "Harmonic mixing guide", Camelot Sound / Mixed In Key: the Camelot wheel, on which keys that mix well are
   neighbours.
"""

from typing import NamedTuple

import numpy as np

from keeptake.audio.chords import find_chords
from keeptake.audio.frontend import LONG_FFT, LONG_HOP, SAMPLE_RATE_HZ

PITCH_CLASSES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
KEYS = tuple(f"{tonic} {mode}" for mode in ("major", "minor") for tonic in PITCH_CLASSES)

# Relative strength of each pitch class above the tonic, learnt from tonal corpora and cleared of the weakest [3]_.
PROFILES = np.array(
    [
        [1.00, 0.00, 0.42, 0.00, 0.53, 0.37, 0.00, 0.77, 0.00, 0.38, 0.21, 0.30],
        [1.00, 0.00, 0.36, 0.39, 0.00, 0.38, 0.00, 0.74, 0.27, 0.00, 0.42, 0.23],
    ]
)

LOWEST_HZ, HIGHEST_HZ = 60.0, 3500.0
PEAK_FLOOR = 1e-3  # of the frame's highest: window side lobes and noise stay below
HARMONICS = 4
HARMONIC_DECAY = 0.6
COMPRESSION = 100.0

SHORTEST_S = 1.0
# A key is believed from how well the profile fits plus how far the peaks agree on a tuning, which drums do not. On the labelled
# set keyed music reaches 0.92 and more, drum loops, speech and noise at most 0.84.
COHERENCE_WEIGHT, MOST_COHERENCE = 2.0, 0.15
LEAST_EVIDENCE = 0.87
PRESENT_CLASS = 0.05  # of the strongest pitch class
LEAST_CLASSES = 3


class Peaks(NamedTuple):
    """Spectral peaks of all frames: three arrays of one length, and the number of frames."""

    frame: np.ndarray
    hz: np.ndarray
    magnitude: np.ndarray
    frames: int


class Key(NamedTuple):
    """A key and how it compares with the next one."""

    name: str
    correlation: float
    second: str
    second_correlation: float


def spectral_peaks(magnitude: np.ndarray) -> Peaks:
    """Local maxima between `LOWEST_HZ` and `HIGHEST_HZ`, each at the vertex of the parabola through its logarithms.

    Parameters
    ----------
    magnitude : np.ndarray [shape=(frames, 4097), float32]
        The long transform.

    Returns
    -------
    Peaks
    """
    hz_a_bin = SAMPLE_RATE_HZ / LONG_FFT
    first, last = int(LOWEST_HZ / hz_a_bin), int(HIGHEST_HZ / hz_a_bin)
    middle = magnitude[:, first:last]
    left, right = magnitude[:, first - 1 : last - 1], magnitude[:, first + 1 : last + 1]
    floor = np.maximum(PEAK_FLOOR * middle.max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    frame, column = np.nonzero((middle > left) & (middle >= right) & (middle > floor))
    tiny = np.float32(1e-20)
    below, here, above = (np.log(side[frame, column] + tiny) for side in (left, middle, right))
    shift = 0.5 * (below - above) / np.minimum(below - 2 * here + above, -1e-6)
    height = np.exp(here - 0.25 * (below - above) * shift)
    hz = (column.astype(np.float32) + first + shift) * np.float32(hz_a_bin)
    return Peaks(frame, hz, height, len(magnitude))


def tuning(peaks: Peaks) -> tuple[float, float]:
    """Deviation of the peaks from equal temperament at A = 440 Hz, as a mean on the circle of one semitone.

    Parameters
    ----------
    peaks : Peaks

    Returns
    -------
    (cents, coherence)
        In [-50, 50); and how far the peaks agree, in [0, 1].
    """
    total = float(peaks.magnitude.sum())
    if total <= 0:
        return 0.0, 0.0
    semitones = 12 * np.log2(peaks.hz / np.float32(440))
    turns = np.float32(2 * np.pi) * (semitones - np.floor(semitones))
    resultant = complex(np.dot(peaks.magnitude, np.cos(turns)), np.dot(peaks.magnitude, np.sin(turns))) / total
    return float(100 * np.angle(resultant) / (2 * np.pi)), abs(resultant)


def chromagram(peaks: Peaks, *, tuning_cents: float) -> np.ndarray:
    """Magnitude of each pitch class in each frame: a peak between two of them is shared.

    Parameters
    ----------
    peaks : Peaks
    tuning_cents : float
        Deviation from A = 440 Hz.

    Returns
    -------
    np.ndarray [shape=(frames, 12), float64]
    """
    pitch = 12 * np.log2(peaks.hz / np.float32(440)) + np.float32(9 - tuning_cents / 100)
    below = np.floor(pitch)
    upper_share = np.sin(np.float32(np.pi / 2) * (pitch - below)) ** 2
    lower = below.astype(np.intp) % 12
    first = peaks.frame * 12
    flat = np.zeros(peaks.frames * 12)  # in floats even without a peak, for which `bincount` answers in integers
    flat += np.bincount(first + lower, peaks.magnitude * (1 - upper_share), flat.size)
    flat += np.bincount(first + (lower + 1) % 12, peaks.magnitude * upper_share, flat.size)
    return flat.reshape(peaks.frames, 12)


def with_harmonics(chroma: np.ndarray) -> np.ndarray:
    """Let every pitch class also speak for those whose harmonic it may be [1]_.

    A peak counts for its own pitch and, each time `HARMONIC_DECAY` as much, for those it may be the 2nd, 3rd … harmonic of. Up to
    the 4th these lie within 2 cents of a semitone, so that whole pitch classes can be moved instead of peaks.

    Parameters
    ----------
    chroma : np.ndarray [shape=(frames, 12)]

    Returns
    -------
    np.ndarray [shape=(frames, 12)]
    """
    spread = np.zeros_like(chroma)
    for harmonic in range(1, HARMONICS + 1):
        semitones = round(12 * np.log2(harmonic))
        spread += HARMONIC_DECAY ** (harmonic - 1) * np.roll(chroma, -semitones, axis=1)
    return spread


def templates(profiles: np.ndarray) -> np.ndarray:
    """Profiles of the 24 keys in the order of `KEYS`, each without its mean and of length 1.

    Parameters
    ----------
    profiles : np.ndarray [shape=(2, 12)]
        Of the major and the minor mode, from the tonic.

    Returns
    -------
    np.ndarray [shape=(24, 12)]
    """
    return _standardised(np.array([np.roll(profile, tonic) for profile in profiles for tonic in range(12)]))


def find_key(profile: np.ndarray, *, templates: np.ndarray | None = None) -> Key:
    """Compare a pitch-class profile with those of the 24 keys.

    Parameters
    ----------
    profile : np.ndarray [shape=(12,)]
        From C; not constant.
    templates : np.ndarray [shape=(24, 12)], optional
        From the function of that name; those of `PROFILES` where None.

    Returns
    -------
    Key
    """
    correlations = (_TEMPLATES if templates is None else templates) @ _standardised(profile)
    second, best = np.argsort(correlations)[-2:]
    return Key(KEYS[best], float(correlations[best]), KEYS[second], float(correlations[second]))


def camelot(key: str) -> str:
    """Code of a key on the Camelot wheel [4]_: 1 to 12 by fifths, B for major, A for the relative minor; C major is 8B.

    Parameters
    ----------
    key : str
        One of `KEYS`.

    Returns
    -------
    str
        "1A" to "12B".

    Raises
    ------
    ValueError
        For any other spelling.
    """
    if key not in KEYS:
        raise ValueError(f"a key is one of {KEYS}, got {key!r}")
    tonic, mode = key.split()
    relative_major = PITCH_CLASSES.index(tonic) + (3 if mode == "minor" else 0)
    return f"{(7 * relative_major + 7) % 12 + 1}{'A' if mode == 'minor' else 'B'}"


def tonality(magnitude: np.ndarray, *, duration_s: float) -> tuple[dict[str, object] | None, str | None, np.ndarray]:
    """Tuning, chroma and key of a clip.

    The chroma of the frames is compressed before it is summed, so that a piece's quiet harmony counts beside its loudest hit
    [2]_. With the plain sum the same profiles scored 0.04 less on the labelled set (`benchmarks/compare_keys.py`).

    Parameters
    ----------
    magnitude : np.ndarray [shape=(frames, 4097), float32]
        The long transform of a clip that is not silent.
    duration_s : float
        Length of the clip.

    Returns
    -------
    (values, reason, chroma)
        `values`: `key`, `camelot` (its code on the Camelot wheel), `key_confidence` (the margin over the second key against the
        best's correlation, in [0, 1]), `key_second`, `key_correlation`, `tuning_cents`, `tuning_coherence`, `chroma`, `chords`
        (see `chords.py`); None with the reason `atonal` or `single-pitch`. `chroma` has shape (frames, 12), each frame's
        strongest class at most 1, and is there in either case.
    """
    peaks = spectral_peaks(magnitude)
    tuning_cents, coherence = tuning(peaks)
    own_pitches = chromagram(peaks, tuning_cents=tuning_cents)
    frames = with_harmonics(own_pitches)
    if not frames.any():
        return None, "atonal", frames
    profile = np.log1p(COMPRESSION * frames / frames.max()).sum(axis=0)
    frames /= frames.max(axis=1, keepdims=True).clip(min=np.finfo(np.float32).tiny)
    strength = own_pitches.sum(axis=0)
    if np.count_nonzero(strength >= PRESENT_CLASS * strength.max()) < LEAST_CLASSES:
        return None, "single-pitch", frames
    key = find_key(profile)
    if key.correlation + COHERENCE_WEIGHT * min(coherence, MOST_COHERENCE) < LEAST_EVIDENCE:
        return None, "atonal", frames
    return (
        {
            "key": key.name,
            "camelot": camelot(key.name),
            "key_confidence": min(1.0, (key.correlation - key.second_correlation) / key.correlation),
            "key_second": key.second,
            "key_correlation": key.correlation,
            "tuning_cents": tuning_cents,
            "tuning_coherence": coherence,
            "chroma": (profile / profile.max()).tolist(),
            "chords": find_chords(
                own_pitches, pitch_classes=PITCH_CLASSES, frame_s=LONG_HOP / SAMPLE_RATE_HZ, duration_s=duration_s
            ),
        },
        None,
        frames,
    )


def _standardised(rows: np.ndarray) -> np.ndarray:
    centred = rows - rows.mean(axis=-1, keepdims=True)
    result: np.ndarray = centred / np.linalg.norm(centred, axis=-1, keepdims=True).clip(min=1e-12)
    return result


_TEMPLATES = templates(PROFILES)
