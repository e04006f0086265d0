"""Are these samples of a sound? What every reader of audio asks first.

Belongs here: what no measurement can deal with. Does not: how loud or broken a take may be (`defects.py`, `custody/prove.py`).
"""

import numpy as np

from keeptake.errors import AudioReason, AudioRefusedError

# 200 dB over full scale. 32-bit integers that were written as floats unscaled reach 2e9; from 1e17 on squares no longer fit into
# float32, and every level of such a file was NaN.
HIGHEST_SAMPLE = 1e10


def check_samples(block: np.ndarray, *, at_frame: int = 0) -> float:
    """Refuse what is no number, or none of a sound.

    Parameters
    ----------
    block : np.ndarray [shape=(n,) or (n, channels), float]
        Full scale at 1; n > 0.
    at_frame : int
        Where the block begins, for the sentence.

    Returns
    -------
    float
        Highest absolute value.

    Raises
    ------
    AudioRefusedError
        `non-finite-samples`.
    """
    peak = float(max(block.max(), -block.min()))  # NaN and infinity survive both
    if not peak <= HIGHEST_SAMPLE:
        bad = int(np.count_nonzero(~(np.abs(block) <= HIGHEST_SAMPLE)))
        detail = f"{bad} samples that are NaN, infinite or beyond 1e10 in the block at frame {at_frame}; render the take again"
        raise AudioRefusedError(AudioReason.NON_FINITE_SAMPLES, detail)
    return peak
