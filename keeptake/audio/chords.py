"""Which chords are played? Major and minor triads over time, or none.

Conventions: labels are Harte's [3]_, "A:min", "Eb:maj", "N" where no triad fits; tonics are spelt as in `tonal.py`. Segments
follow each other without gaps from 0 s to the last frame; their edges lie between frames of the long transform, 0.19 s apart.
Chords are read from frames, not beats: the tonal part then depends on no other part, and music without a pulse has chords too.
Drums that hit in every frame, a fast beat much louder than its chords, hide them.

Belongs here: labelled segments. Does not: the chroma and the key (`tonal.py`).

References
----------
.. [1] Fujishima, T. (1999), "Realtime chord recognition of musical sound: a system using Common Lisp Music", ICMC: chroma against
   binary triad templates.
.. [2] Müller, M. (2021), "Fundamentals of music processing", 2nd edition, chapter 5: logarithmic compression, templates, and a
   hidden Markov model with uniform changes.
.. [3] Harte, C. et al. (2005), "Symbolic representation of musical chords", ISMIR: the labels.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

TRIADS = {"maj": (0, 4, 7), "min": (0, 3, 7)}
COMPRESSION = 1.0  # log(1 + COMPRESSION * chroma), the strongest class being 1 [2]_: at 10 strong third harmonics change chords
SHARPNESS = 12.0  # of the likelihood exp(SHARPNESS * cosine)
STAY = 0.9  # probability that a frame keeps the chord of the one before: changes 1.9 s apart
SILENT_SHARE = 10 ** (-50 / 20)  # frames this far below the loudest hold no chord


def find_chords(
    chroma: Floats, *, pitch_classes: tuple[str, ...], frame_s: float, duration_s: float
) -> list[dict[str, float | str]]:
    """Label the frames and join those of one label.

    Parameters
    ----------
    chroma : np.ndarray [shape=(frames, 12), >= 0]
        Magnitude of each pitch class.
    pitch_classes : tuple of str
        Names of the twelve, from C.
    frame_s : float
        Frames lie this far apart; frame i is centred at i * frame_s.
    duration_s : float
        Length of the clip: where the last chord ends, since frames reach beyond it.

    Returns
    -------
    list of dict
        `start_s`, `end_s`, `label`, in order.
    """
    labels = [f"{tonic}:{quality}" for quality in TRIADS for tonic in pitch_classes] + ["N"]
    states = _likeliest(SHARPNESS * similarities(chroma))
    edges = np.flatnonzero(np.diff(states)) + 1
    firsts = np.concatenate([[0], edges])
    times = np.concatenate([[0.0], (edges - 0.5) * frame_s, [duration_s]])
    return [
        {"start_s": float(start), "end_s": float(end), "label": labels[states[first]]}
        for first, start, end in zip(firsts, times[:-1], times[1:], strict=True)
    ]


def similarities(chroma: Floats) -> Floats:
    """Cosine of each frame with the 24 triads and with the flat profile of no chord, shape (frames, 25).

    Parameters
    ----------
    chroma : np.ndarray [shape=(frames, 12), >= 0]

    Returns
    -------
    np.ndarray [shape=(frames, 25)]
        In [0, 1]; silent frames fit no chord.
    """
    highest = chroma.max(axis=1, keepdims=True)
    is_sounding = highest[:, 0] > SILENT_SHARE * highest.max()
    frames = np.log1p(COMPRESSION * chroma / np.maximum(highest, np.finfo(np.float64).tiny))
    frames[~is_sounding] = 1.0
    frames /= np.linalg.norm(frames, axis=1, keepdims=True)
    result: Floats = frames @ _TEMPLATES.T
    return result


def _likeliest(score: Floats) -> NDArray[np.intp]:
    """Viterbi's path; every change is as likely as any other, so that a step compares staying with the best of all."""
    frames, states = score.shape
    stay, change = np.log(STAY), np.log((1 - STAY) / (states - 1))
    came_from = np.tile(np.arange(states), (frames, 1))
    reached = score[0].copy()
    for frame in range(1, frames):
        best = int(reached.argmax())
        jump = reached[best] + change
        is_jump = jump > reached + stay
        came_from[frame, is_jump] = best
        reached = np.where(is_jump, jump, reached + stay) + score[frame]
    path = np.empty(frames, np.intp)
    path[-1] = reached.argmax()
    for frame in range(frames - 1, 0, -1):
        path[frame - 1] = came_from[frame, path[frame]]
    return path


def _templates() -> Floats:
    rows = np.zeros((25, 12))
    for number, triad in enumerate(TRIADS.values()):
        for tonic in range(12):
            rows[12 * number + tonic, [(tonic + step) % 12 for step in triad]] = 1
    rows[24] = 1
    normed: Floats = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return normed


_TEMPLATES = _templates()
