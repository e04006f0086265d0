"""Does it swing? The ratio of the long to the short eighth of a beat.

Conventions: 1 is straight, 2 a triplet's, 3 a dotted eighth's [1]_; None where the off-beat has no attack of its own, or where
other attacks between the beats leave open which of them it is (triplets, sixteenths without an eighth, a tempo heard at half).

Belongs here: timing within the beat. Does not: the beats (`beats.py`).

References
----------
.. [1] Friberg, A. & Sundström, A. (2002), "Swing ratios and ensemble timing in jazz performance: evidence for a common rhythmic
   pattern", Music Perception 19(3).
.. [2] Dittmar, C., Pfleiderer, M. & Müller, M. (2015), "Automated estimation of ride cymbal swing ratios in jazz recordings",
   ISMIR: the ratio from the onset envelope's pattern within a beat.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

PHASES = 48  # of a beat: about a frame each
LEAST_BEATS = 8
EARLIEST, LATEST = 0.46, 0.79  # where a beat's second eighth may lie: ratios of 0.85 to 3.8
LEAST_STRENGTH = 0.08  # of the beats' own attack
WIDTH = 3  # phases to either side of a peak that belong to it
RIVAL_SHARE = 0.5  # of the off-beat's strength, from which another attack between the beats leaves it open
STRAIGHT, QUARTERS, NEAR = 0.5, (0.25, 0.75), 0.04  # sixteenths about a straight eighth are no rivals


def swing_ratio(envelope: Floats, beats_s: Floats, *, frame_rate_hz: float) -> float | None:
    """Find the second eighth in the mean onset envelope between beats [2]_.

    Parameters
    ----------
    envelope : np.ndarray [shape=(frames,), >= 0]
        Onset envelope.
    beats_s : np.ndarray [shape=(n,), increasing]
    frame_rate_hz : float

    Returns
    -------
    float or None
        Of the long eighth to the short one, in about 0.85 to 3.8.
    """
    if beats_s.size <= LEAST_BEATS:
        return None
    profile = beat_profile(envelope, beats_s, frame_rate_hz=frame_rate_hz)
    strength = profile[0]
    inside = np.arange(WIDTH + 1, PHASES - WIDTH)
    is_peak = (profile[inside] >= profile[inside - 1]) & (profile[inside] > profile[inside + 1])
    peaks = inside[is_peak & (profile[inside] >= LEAST_STRENGTH * strength)]
    places = np.array([_centre(profile, int(peak)) for peak in peaks])
    is_eighth = (places >= EARLIEST) & (places <= LATEST)
    if not is_eighth.any():
        return None
    best = int(np.argmax(np.where(is_eighth, profile[peaks], 0)))
    is_rival = profile[peaks] >= RIVAL_SHARE * profile[peaks[best]]
    is_rival[best] = False
    if abs(places[best] - STRAIGHT) <= NEAR:
        is_rival &= np.abs(places[:, None] - QUARTERS).min(axis=1) > NEAR
    place = float(places[best] - _centre(profile, 0))
    return None if is_rival.any() else place / (1 - place)


def beat_profile(envelope: Floats, beats_s: Floats, *, frame_rate_hz: float) -> Floats:
    """Mean of the envelope at `PHASES` places of a beat, the first on the beat; its median is taken off."""
    phases = np.arange(PHASES) / PHASES
    frames = (beats_s[:-1, None] + np.diff(beats_s)[:, None] * phases) * frame_rate_hz
    profile = np.interp(frames.ravel(), np.arange(envelope.size), envelope).reshape(frames.shape).mean(axis=0)
    lifted: Floats = np.maximum(profile - np.median(profile), 0)
    return lifted


def _centre(profile: Floats, peak: int) -> float:
    """Centre of gravity of a peak, in beats; negative where it lies before the beat."""
    steps = np.arange(-WIDTH, WIDTH + 1)
    weights = profile[(peak + steps) % PHASES]
    return (peak + float(np.dot(steps, weights)) / max(float(weights.sum()), 1e-9)) / PHASES
