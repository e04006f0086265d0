"""Where may a take be cut? Clips of a trainer's length that begin and end where the music does.

Conventions: times in seconds from the start of the take. A take that fits is one clip from 0 to its end. Belongs here: where to
cut. Does not: hearing bars and sections (`keeptake/audio/`), writing the clips (`keeptake/formats/clips.py`).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from keeptake.curation.policy import Audio

TOLERANCE_S = 1e-6
# Captions of music are written of ten seconds (MusicCaps: Agostinelli et al. 2023, "MusicLM"), so a clip of ten may carry one;
# the end of a take of 31 s was a clip of one second with the words of the whole.
LEAST_REST = 1 / 3  # of the longest clip


class Clip(NamedTuple):
    """A part of a take."""

    start_s: float
    end_s: float


def clips(duration_s: float, audio: Audio, *, downbeats_s: Sequence[float] = (), sections_s: Sequence[float] = ()) -> list[Clip]:
    """Cut a take as its policy says.

    A clip ends at a section's start if one lies in its second half, else at the last bar line that fits, else at the longest
    length: short clips teach a model to stop early, so sections yield to length there. Where that would leave less than
    `LEAST_REST` of the longest length for the end of the take, the last two clips meet near their middle instead.

    Parameters
    ----------
    duration_s : float, > 0
        Length of the take.
    audio : Audio
        The policy's section: what to do with long takes, and the lengths of a clip.
    downbeats_s, sections_s : sequences of float, increasing
        Starts of bars and of sections.

    Returns
    -------
    list of Clip
        In order, without overlap or gap to the end of the take, but for a last rest that no two clips of `min_clip_s` can share;
        none where the take is too short, or too long and the policy does not cut.
    """
    if duration_s < audio.min_clip_s:
        return []
    if duration_s <= audio.max_clip_s:
        return [Clip(0.0, duration_s)]
    if audio.cut == "none":
        return []
    least_s = max(audio.min_clip_s, audio.max_clip_s * LEAST_REST)
    found, start_s = [], 0.0
    while duration_s - start_s >= audio.min_clip_s:
        end_s = _end(start_s, duration_s, audio, downbeats_s, sections_s)
        is_stub = 0 < duration_s - end_s < least_s
        if is_stub and audio.cut == "segments" and duration_s - start_s >= 2 * least_s:
            end_s = _middle(start_s, duration_s, audio, least_s, downbeats_s, sections_s)
        found.append(Clip(round(start_s, 6), round(end_s, 6)))
        start_s = end_s
        if audio.cut == "head":
            break
    return found


def _end(start_s: float, duration_s: float, audio: Audio, downbeats_s: Sequence[float], sections_s: Sequence[float]) -> float:
    latest_s = start_s + audio.max_clip_s
    if duration_s <= latest_s:
        return duration_s
    half_s = start_s + max(audio.min_clip_s, audio.max_clip_s / 2)
    for boundaries in (sections_s, downbeats_s):
        fitting = [at_s for at_s in boundaries if half_s <= at_s <= latest_s + TOLERANCE_S]
        if fitting:
            return min(max(fitting), latest_s)
    return latest_s


def _middle(
    start_s: float, duration_s: float, audio: Audio, least_s: float, downbeats_s: Sequence[float], sections_s: Sequence[float]
) -> float:
    """Where two clips from a start to the end of the take meet: the section, else the bar line, nearest to their middle."""
    first_s = max(start_s + least_s, duration_s - audio.max_clip_s)
    last_s = min(start_s + audio.max_clip_s, duration_s - least_s)
    middle_s = (start_s + duration_s) / 2
    for boundaries in (sections_s, downbeats_s):
        fitting = [at_s for at_s in boundaries if first_s <= at_s <= last_s]
        if fitting:
            return min(fitting, key=lambda at_s: abs(at_s - middle_s))
    return middle_s


def section_starts_s(structure: dict[str, Any]) -> list[float]:
    """Starts of the sections that the analysis found, if it did."""
    return sorted(float(section["start_s"]) for section in structure.get("sections") or [])
