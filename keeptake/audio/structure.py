"""What is it made of? Sections, which of them return, and whether the whole plays round.

Conventions: sections cover the clip from 0 to its end without gaps; each begins with a bar where bars are known, with a beat
where only beats are, and on a grid of `GRID_S` where there is no pulse. Sections that sound alike carry the same letter, in the
order of first appearance: A, B, A.

Belongs here: what lasts several bars. Does not: bars (`meter.py`), the loop's own question (`loops.py`).

References
----------
.. [1] Foote, J. (2000), "Automatic audio segmentation using a measure of audio novelty", ICME: a checkerboard along the diagonal
   of the self-similarity matrix.
.. [2] Cooper, M. and Foote, J. (2003), "Summarizing popular music via structural similarity analysis", WASPAA: clustering of
   segments by their similarity.
.. [3] Müller, M. (2015), "Fundamentals of Music Processing", Springer, section 4.4: Gaussian taper, padding at the ends.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import scipy.cluster.hierarchy
import scipy.spatial.distance
from numpy.typing import NDArray

from keeptake.audio.loops import find_loop
from keeptake.audio.meter import beat_levels
from keeptake.audio.onsets import is_silent

Floats = NDArray[np.floating]

MIN_DURATION_S = 3.0
GRID_S = 2.0
# Frames at either end whose window reaches beyond it: they hear a step that the music does not have, and a steady tone was two
# sections for it.
EDGE_FRAMES = 2
HALF_KERNEL = 4  # bars to either side
SIMILARITY_DB = 6.0  # bars that differ by this much are similar by 1/e
# Of the mean similarity within both sides over that across. On the dev set's clips of one section no bar but one in nine clips
# reaches it, of 15 changes of section 11 do; 0.06 to 0.10 rank alike (benchmarks/RESULTS.md).
MIN_NOVELTY = 0.08
SAME_LABEL_SHARE = (
    0.5  # of the distance between bars of one section: returning choruses of the dev set 0.1 to 0.3, others 0.53 to 3
)


def structure(
    mel: Floats,
    *,
    frame_rate_hz: float,
    duration_s: float,
    rhythm: dict[str, Any] | None,
) -> tuple[dict[str, Any] | None, str | None]:
    """Hear sections and loops.

    Parameters
    ----------
    mel : np.ndarray [shape=(frames, 128), float32, >= 0]
        Power mel spectrogram of the mono mix.
    frame_rate_hz, duration_s : float
        Frames a second, and the length of the clip.
    rhythm : dict or None
        Values of `keeptake.audio.rhythm.rhythm`, None where it heard none.

    Returns
    -------
    values : dict or None
        `sections`, each with `start_s`, `end_s`, `label`; `is_loop`, `loop_bars` and `seam_score`, null without a pulse.
    reason : str or None
        `too-short` or `silent` where values is None.

    References
    ----------
    [1]_, [2]_, [3]_
    """
    if duration_s < MIN_DURATION_S:
        return None, "too-short"
    if is_silent(mel):
        return None, "silent"
    starts_s = bar_starts(rhythm, duration_s)
    inner_s = np.append(starts_s, duration_s) - EDGE_FRAMES / frame_rate_hz
    levels = beat_levels(mel[EDGE_FRAMES:-EDGE_FRAMES], inner_s, frame_rate_hz=frame_rate_hz)
    first_bars = [0, *section_starts(novelty(levels))]
    sections = named_sections([float(starts_s[bar]) for bar in first_bars], section_labels(levels, first_bars), duration_s)
    values: dict[str, Any] = {"sections": sections, "is_loop": None, "loop_bars": None, "seam_score": None}
    if rhythm is not None:
        loop = find_loop(
            mel,
            frame_rate_hz=frame_rate_hz,
            duration_s=duration_s,
            tempo_bpm=rhythm["tempo_bpm"],
            beats_s=np.array(rhythm["beats_s"]),
            beats_in_bar=rhythm["beats_per_bar"] or 4,
            is_steady=not rhythm["has_tempo_change"],
        )
        values |= loop._asdict()
    return values, None


def bar_starts(rhythm: dict[str, Any] | None, duration_s: float) -> Floats:
    """Where bars begin, from 0; groups of four beats where bars are not known, a grid where beats are not.

    What comes before the first downbeat is an upbeat of its own if it lasts half a bar, else part of the first bar; the same
    holds for what is left at the end.
    """
    if rhythm is None:
        starts_s = np.arange(0, duration_s, GRID_S)
    elif rhythm["downbeats_s"]:
        starts_s = np.array(rhythm["downbeats_s"])
    else:
        starts_s = np.array(rhythm["beats_s"])[::4]
    length_s = float(np.median(np.diff(starts_s))) if starts_s.size > 1 else duration_s
    inner = starts_s[(starts_s > 0.5 * length_s) & (starts_s < duration_s - 0.5 * length_s)]
    return np.concatenate([[0.0], inner])


def novelty(levels: Floats) -> Floats:
    """How much more the bars on either side resemble their own side than the other [1]_.

    A bar's likeness to itself says nothing and is left out: with it, every place near an end looks new.

    Parameters
    ----------
    levels : np.ndarray [shape=(bars, bands)]
        Mean level of each bar, in dB.

    Returns
    -------
    np.ndarray [shape=(bars,)]
        In [-1, 1] for the place where each bar begins; 0 for the first two and the last, where there is no side to speak of.
    """
    bars = len(levels)
    similarity = np.exp(-scipy.spatial.distance.cdist(levels, levels) / np.sqrt(levels.shape[1]) / SIMILARITY_DB)
    place = np.arange(-HALF_KERNEL, HALF_KERNEL) + 0.5
    taper = np.exp(-0.5 * (place / (0.5 * HALF_KERNEL)) ** 2)
    weight = np.outer(taper, taper) * ~np.eye(place.size, dtype=bool)
    same_side = np.outer(place, place) > 0
    values = np.zeros(bars)
    for bar in range(2, bars - 1):
        first, last = max(0, bar - HALF_KERNEL), min(bars, bar + HALF_KERNEL)
        around = slice(first - bar + HALF_KERNEL, last - bar + HALF_KERNEL)
        near, side = weight[around, around], same_side[around, around]
        here = similarity[first:last, first:last]
        values[bar] = np.average(here[side], weights=near[side]) - np.average(here[~side], weights=near[~side])
    return values


def section_starts(values: Floats) -> list[int]:
    """Bars whose novelty is the highest within two bars, and at least `MIN_NOVELTY`."""
    return [
        bar
        for bar in range(2, len(values) - 1)
        if values[bar] >= MIN_NOVELTY and values[bar] == values[max(0, bar - 2) : bar + 3].max()
    ]


def section_labels(levels: Floats, first_bars: list[int]) -> list[str]:
    """Letters for sections, the same for those that sound alike [2]_.

    Average linkage over the distances between the sections' mean levels, cut at `SAME_LABEL_SHARE` of the median distance of two
    bars within one section: what varies more from bar to bar may vary more when it returns.
    """
    if len(first_bars) == 1:
        return ["A"]
    bars = [levels[start:end] for start, end in pairwise([*first_bars, len(levels)])]
    within = float(np.median(np.concatenate([scipy.spatial.distance.pdist(own) for own in bars])))
    tree = scipy.cluster.hierarchy.average(scipy.spatial.distance.pdist(np.array([own.mean(axis=0) for own in bars])))
    clusters = scipy.cluster.hierarchy.fcluster(tree, SAME_LABEL_SHARE * within, criterion="distance").tolist()
    order = list(dict.fromkeys(clusters))
    return [_letters(order.index(cluster)) for cluster in clusters]


def named_sections(starts_s: list[float], labels: list[str], duration_s: float) -> list[dict[str, Any]]:
    """Sections as they are reported; neighbours of one label are one section."""
    new = [0, *(number for number in range(1, len(labels)) if labels[number] != labels[number - 1])]
    edges_s = [*(starts_s[number] for number in new), duration_s]
    return [
        {"start_s": start_s, "end_s": end_s, "label": labels[number]}
        for number, (start_s, end_s) in zip(new, pairwise(edges_s), strict=True)
    ]


def _letters(number: int) -> str:
    """A to Z, then AA, AB …, as spreadsheets count."""
    return (_letters(number // 26 - 1) if number >= 26 else "") + chr(ord("A") + number % 26)
