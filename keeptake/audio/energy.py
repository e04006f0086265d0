"""How is its energy spread over time? The frames' root mean square, and how many of them lie below its mean.

Conventions: full scale is 1, so a full-scale sine has 0.707. A held tone has no frame of low energy to speak of, a take of few
attacks and long pauses nearly all.

Belongs here: energy as timbre's descriptors have it. Does not: loudness as it is heard and its range (`loudness.py`).

References
----------
.. [1] Tzanetakis, G. & Cook, P. (2002), "Musical genre classification of audio signals", IEEE TSAP 10(5): the low-energy feature.
"""

import numpy as np

FRAME = 512  # 23 ms at 22,050 Hz, the analysis window of [1]_
SAME = 0.99  # of the mean: a steady tone's frames differ by where they cut it, and none of them is lower


def energy(mono: np.ndarray) -> dict[str, float | None]:
    """Energy and how unevenly it is spread.

    Parameters
    ----------
    mono : np.ndarray [shape=(n,), float32]
        The mix, at 22,050 Hz for frames of [1]_.

    Returns
    -------
    dict
        `rms_energy`, mean over frames, in [0, 1], and `low_energy_share`, the share of frames below it, in [0, 1] [1]_. Both are
        None for less than a frame.
    """
    frames = mono[: mono.size // FRAME * FRAME].reshape(-1, FRAME)
    if not len(frames):
        return {"rms_energy": None, "low_energy_share": None}
    rms = np.sqrt(np.einsum("ij,ij->i", frames, frames) / FRAME)
    mean = float(rms.mean(dtype=np.float64))
    return {"rms_energy": mean, "low_energy_share": float(np.mean(rms < SAME * mean))}
