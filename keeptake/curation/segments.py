"""Where may a take be cut? Clips of a trainer's length that begin and end where the music does.

Conventions: times in seconds from the start of the take. A take that fits is one clip from 0 to its end. Belongs here: where to
cut. Does not: hearing bars and sections (`keeptake/audio/`), writing the clips (`keeptake/formats/clips.py`).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from keeptake.curation.policy import Audio

TOLERANCE_S = 1e-6


class Clip(NamedTuple):
    """A part of a take."""

    start_s: float
    end_s: float


def clips(duration_s: float, audio: Audio, *, downbeats_s: Sequence[float] = (), sections_s: Sequence[float] = ()) -> list[Clip]:
    """Cut a take as its policy says.

    A clip ends at a section's start if one lies in its second half, else at the last bar line that fits, else at the longest
    length: short clips teach a model to stop early, so sections yield to length there.

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
        In order, without overlap; none where the take is too short, or too long and the policy does not cut.
    """
    if duration_s < audio.min_clip_s:
        return []
    if duration_s <= audio.max_clip_s:
        return [Clip(0.0, duration_s)]
    if audio.cut == "none":
        return []
    found, start_s = [], 0.0
    while duration_s - start_s >= audio.min_clip_s:
        end_s = _end(start_s, duration_s, audio, downbeats_s, sections_s)
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


def section_starts_s(structure: dict[str, Any]) -> list[float]:
    """Starts of the sections that the analysis found, if it did."""
    sections = structure.get("sections") or structure.get("sections_s") or []
    starts_s = [section["start_s"] if isinstance(section, dict) else section[0] for section in sections]
    return sorted(float(start_s) for start_s in starts_s)
