"""What does a clip sound like, in a sentence? Captions from heard facts alone.

Conventions: nothing is said that was not heard with some certainty; the order is fixed (mood, genre, instruments, tempo, key,
voice), so that equal facts read equal. Belongs here: the sentence, and which text a trainer reads. Does not: the user's prompt
(`scrub.py` cleans it), hearing.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keeptake.curation.policy import Captions
from keeptake.curation.segments import Clip

CAPTIONS_VERSION = "3"  # 3: what a trainer reads has no words of the prompt that the clip contradicts
# Of 62 labelled takes 44 reach it, and the label agrees with all of them; at 0.05 with 48 of 53, and at 0.3 only 11 are left.
LEAST_KEY_CONFIDENCE = 0.1
LEAST_TEMPO_CONFIDENCE = 0.3
FEWEST_BEATS = 8  # below, a clip's own tempo is a guess, and the take's is said
MOST_INSTRUMENTS = 3


def clip_tempo_bpm(clip: Clip, beats_s: Sequence[float], take_bpm: float | None, *, has_tempo_change: bool) -> float | None:
    """Tempo of a clip: the take's; where that changes, of a line through the clip's own beats, if they are enough."""
    inside = np.asarray([at_s for at_s in beats_s if clip.start_s <= at_s <= clip.end_s])
    # A clip's few beats say ten times less exactly what all of a steady take's say: 137 BPM were called 138.
    if take_bpm is None or not has_tempo_change or inside.size < FEWEST_BEATS:
        return take_bpm
    slope_s, _ = np.polyfit(np.arange(inside.size), inside, 1)
    own_bpm = 60.0 / float(slope_s)
    # Beats may have been tracked at half or double the tempo that was believed in the end: speak in the take's octave.
    octave: float = 2.0 ** round(math.log2(take_bpm / own_bpm))
    return round(own_bpm * octave, 2)


def clip_vocal_share(clip: Clip, vocal_segments_s: Sequence[Sequence[float]]) -> float:
    """Share of a clip in which a voice was heard, in [0, 1]."""
    sung_s = sum(max(0.0, min(end_s, clip.end_s) - max(start_s, clip.start_s)) for start_s, end_s in vocal_segments_s)
    return min(1.0, sung_s / (clip.end_s - clip.start_s))


def sure_tempo_bpm(facts: Mapping[str, Any]) -> float | None:
    """The tempo that was heard, where it was heard with enough certainty to train on."""
    return facts.get("tempo_bpm") if (facts.get("tempo_confidence") or 0.0) >= LEAST_TEMPO_CONFIDENCE else None


def sure_key(facts: Mapping[str, Any]) -> str | None:
    """The key that was heard, where it was heard with enough certainty to train on."""
    return facts.get("key") if (facts.get("key_confidence") or 0.0) >= LEAST_KEY_CONFIDENCE else None


def heard_caption(facts: Mapping[str, Any]) -> str:
    """Describe a clip.

    Parameters
    ----------
    facts : Mapping
        Any of `genre, mood, instruments, tempo_bpm, tempo_confidence, key, key_confidence, has_vocals`; None is not spoken of.

    Returns
    -------
    str
        Such as `dark trap with synth and drums, 140 BPM, in A minor, instrumental`; empty where nothing is known.

    >>> heard_caption({"genre": "trap", "tempo_bpm": 139.8, "tempo_confidence": 0.9, "has_vocals": False})
    'trap, 140 BPM, instrumental'
    """
    style = " ".join(word for word in (facts.get("mood"), facts.get("genre")) if word)
    instruments = list(facts.get("instruments") or ())[:MOST_INSTRUMENTS]
    if instruments:
        style = f"{style or 'music'} with {_listed(instruments)}"
    said = [style]
    if tempo_bpm := sure_tempo_bpm(facts):
        said.append(f"{tempo_bpm:.0f} BPM")
    if key := sure_key(facts):
        said.append(f"in {key}")
    if facts.get("has_vocals") is not None:
        said.append("with vocals" if facts["has_vocals"] else "instrumental")
    return ", ".join(part for part in said if part)


def trainer_text(prompt: str, heard: str, captions: Captions) -> str:
    """Text that a trainer reads; never empty, as a caption that is missing trains a model to ignore captions."""
    wanted = {"prompt": [prompt], "heard": [heard], "both": [prompt, heard]}[captions.trainer_reads]
    return ". ".join(part for part in wanted if part) or prompt or heard or "music"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
