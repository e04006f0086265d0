"""What do a few takes look like? Pictures of examples, for people who look at the graph.

Conventions: PNG bytes by take, small ones, because an event log keeps them for ever. A take that cannot be drawn is left out: a
picture must not fail the work that it shows. A run that found nothing to do draws too, since its page is the one that people
open: for `IDLE_S`, as it has to stay cheap.

Belongs here: which takes are drawn, and from where. Does not: the drawing (`audio/plot.py`, `audio/thumbnail.py`), how the graph
shows it (`assets/`).
"""

from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from math import inf
from time import monotonic

from keeptake.audio_store import AudioStore
from keeptake.errors import KeeptakeError
from keeptake.ledger.analyses import stored_parts
from keeptake.ledger.connection import Ledger
from keeptake.ledger.overviews import example_audio_of_day
from keeptake.stage import Progress, silent

MOST_THUMBNAILS = 12
IDLE_S = 1.0  # twelve of a local store take half of it
THUMBNAIL_S = 60.0  # of a take's beginning: ten minutes would cost ten times as much to decode


def draw_examples(
    ledger: Ledger, day: str, store: AudioStore, *, is_idle: bool = False, progress: Progress = silent
) -> dict[str, bytes]:
    """Draw the three newest heard takes of a day: generation id → PNG of waveform, beats, sections, spectrum, chroma.

    Parameters
    ----------
    is_idle : bool
        Whether there was nothing to hear: then the spectrum alone, which costs a tenth, as `draw_thumbnails` does it.
    """
    from keeptake.audio.analyze import Part
    from keeptake.hearing import draw

    examples = example_audio_of_day(ledger, day)
    if is_idle:
        small = draw_thumbnails(store, (sha256 for _, sha256 in examples), is_idle=True)
        return {generation_id: small[sha256] for generation_id, sha256 in examples if sha256 in small}
    drawn = {}
    for done, (generation_id, sha256) in enumerate(examples):
        progress("drawing examples", done, len(examples))
        parts = {name: Part(**part) for name, part in stored_parts(ledger, sha256).items()}
        with suppress(KeeptakeError), store.as_file(sha256) as path:
            drawn[generation_id] = draw(path, parts, title=generation_id, is_small=True)
    progress("drawing examples", len(examples), len(examples))
    return drawn


def draw_thumbnails(store: AudioStore, files: Iterable[str], *, is_idle: bool = False) -> dict[str, bytes]:
    """Draw the mel spectrograms of at most `MOST_THUMBNAILS` audio files, the first ones: SHA-256 → PNG of a few kilobytes.

    Parameters
    ----------
    is_idle : bool
        Whether the run had nothing to do: then no file is begun after `IDLE_S`, but the first.
    """
    from keeptake.hearing import draw_thumbnail

    drawn = {}
    end = monotonic() + (IDLE_S if is_idle else inf)
    for sha256 in islice(dict.fromkeys(files), MOST_THUMBNAILS):
        with suppress(KeeptakeError), store.as_file(sha256) as path:
            drawn[sha256] = draw_thumbnail(path, first_s=THUMBNAIL_S)
        if monotonic() >= end:
            break
    return drawn
