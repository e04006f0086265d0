"""Does somebody sing, rap or speak, and when? Two networks' evidence, weighed by one rule.

Conventions: two witnesses, each asked for its evidence as a logarithm of odds, are added up and squashed to a probability (a
logistic model with three weights). The music tagger hears singing in a mix, and fails on voices it takes for an instrument; the
speech detector hears rap, speech and bare singing, and misses sung mixes. Times in seconds from the start of the samples.

Belongs here: the rule. Does not: the networks (they come in as their outputs), what a voice sings.

References
----------
.. [1] Pons, J. & Serra, X. (2019), "musicnn: pre-trained convolutional neural networks for music audio tagging", ISMIR.
.. [2] Silero Team (2021), "Silero VAD".
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

VOCAL_TAGS = frozenset(
    (
        *("vocal", "vocals", "voice", "singing", "male vocal", "female vocal", "male voice", "female voice"),
        *("male", "female", "man", "woman", "opera", "choir", "choral"),
    )
)
NO_VOCAL_TAGS = frozenset(("no vocal", "no vocals", "no voice"))

# Fitted with balanced classes on 12 vocal and 71 instrumental clips of the labelled set; five folds, ten shuffles: balanced
# accuracy 0.941 ± 0.003, area under the curve 0.964 ± 0.004 (`benchmarks/fit_vocals.py`). Alone: tags 0.84, speech 0.95.
TAG_WEIGHT, SPEECH_WEIGHT, BIAS = 1.0, 0.6, 0.0

TAG_PERCENTILE = 80.0  # of the patches: a fifth of a take with a voice makes it vocal
SPEECH_PERCENTILE = 95.0  # of the frames: syllables come with pauses, one word in 30 s is not a vocal take
FEWEST_ODDS = 1e-3  # probabilities are kept this far from 0 and 1, so that no witness can outvote any evidence
PATCH_S = 3.0


def vocals(
    tags_probability: np.ndarray,
    *,
    tags: Sequence[str],
    patch_starts_s: np.ndarray,
    speech_probability: np.ndarray,
    speech_starts_s: np.ndarray,
    duration_s: float,
) -> dict[str, Any]:
    """Weigh both witnesses over a take.

    Parameters
    ----------
    tags_probability : np.ndarray [shape=(patches, tags), in [0, 1]]
    tags : sequence of str
        Names of the columns.
    patch_starts_s : np.ndarray [shape=(patches,)]
        A patch lasts `PATCH_S`.
    speech_probability, speech_starts_s : np.ndarray [shape=(frames,)]
    duration_s : float, > 0

    Returns
    -------
    dict
        `vocals_probability`, `has_vocals` (probability of one half or more), `vocal_segments_s` (pairs of start and end, from
        patches that are vocal by the same rule; none in an instrumental take) and `vocal_share` of the duration, in [0, 1].
    """
    tag_evidence = tag_log_ratio(tags_probability, tags)
    probability = _vocal_probability(np.percentile(tag_evidence, TAG_PERCENTILE), speech_evidence(speech_probability))
    has_vocals = bool(probability >= 0.5)
    segments_s: list[list[float]] = []
    if has_vocals:
        by_patch = np.array(
            [
                speech_evidence(speech_probability[(speech_starts_s >= start_s) & (speech_starts_s < start_s + PATCH_S)])
                for start_s in patch_starts_s
            ]
        )
        patch_probability = _vocal_probability(tag_evidence, by_patch)
        # The likeliest patch of a vocal take is vocal, even if each witness was convinced at another place.
        is_vocal = (patch_probability >= 0.5) | (patch_probability == patch_probability.max())
        segments_s = merged_segments(patch_starts_s[is_vocal], length_s=PATCH_S, duration_s=duration_s)
    return {
        "vocals_probability": float(probability),
        "has_vocals": has_vocals,
        "vocal_segments_s": segments_s,
        "vocal_share": float(sum(end_s - start_s for start_s, end_s in segments_s) / duration_s),
    }


def tag_log_ratio(tags_probability: np.ndarray, tags: Sequence[str]) -> np.ndarray:
    """Logarithm of what the vocal tags sum to over what the tags of their absence sum to.

    Parameters
    ----------
    tags_probability : np.ndarray [shape=(patches, tags)]
    tags : sequence of str

    Returns
    -------
    np.ndarray [shape=(patches,)]
    """
    is_vocal, is_no_vocal = ([tag in names for tag in tags] for names in (VOCAL_TAGS, NO_VOCAL_TAGS))
    ratio: np.ndarray = np.log(
        (tags_probability[:, is_vocal].sum(axis=1) + FEWEST_ODDS) / (tags_probability[:, is_no_vocal].sum(axis=1) + FEWEST_ODDS)
    )
    return ratio


def merged_segments(starts_s: np.ndarray, *, length_s: float, duration_s: float) -> list[list[float]]:
    """Join pieces of one length that touch or overlap, cut at the end of the take.

    >>> merged_segments(np.array([0.0, 3.0, 9.0]), length_s=3.0, duration_s=10.0)
    [[0.0, 6.0], [9.0, 10.0]]
    """
    segments: list[list[float]] = []
    for start_s in sorted(map(float, starts_s)):
        end_s = min(start_s + length_s, duration_s)
        if segments and start_s <= segments[-1][1] + 1e-6:
            segments[-1][1] = end_s
        else:
            segments.append([start_s, end_s])
    return segments


def speech_evidence(speech_probability: np.ndarray) -> float:
    """Log-odds of the upper end of the frames' speech probability.

    Parameters
    ----------
    speech_probability : np.ndarray [shape=(frames,)]

    Returns
    -------
    float
        Within the log-odds of `FEWEST_ODDS`; without frames, those of no speech.
    """
    if speech_probability.size == 0:
        return float(np.log(FEWEST_ODDS))
    upper = np.clip(np.percentile(speech_probability, SPEECH_PERCENTILE), FEWEST_ODDS, 1 - FEWEST_ODDS)
    return float(np.log(upper / (1 - upper)))


def _vocal_probability(tag_evidence: np.ndarray | float, speech_evidence: np.ndarray | float) -> np.ndarray:
    evidence = TAG_WEIGHT * np.asarray(tag_evidence) + SPEECH_WEIGHT * np.asarray(speech_evidence) + BIAS
    return np.asarray(1 / (1 + np.exp(-evidence)))
