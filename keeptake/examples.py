"""What do a few takes look like? Pictures of examples, for people who look at the graph.

Conventions: PNG bytes by take, small ones, because an event log keeps them for ever. A take that cannot be drawn is left out: a
picture must not fail the work that it shows.

Belongs here: which takes are drawn, and from where. Does not: the drawing (`audio/plot.py`, `audio/thumbnail.py`), how the graph
shows it (`assets/`).
"""

from collections.abc import Iterable
from contextlib import suppress
from itertools import islice

from keeptake.audio_store import AudioStore
from keeptake.errors import KeeptakeError
from keeptake.ledger.analyses import stored_parts
from keeptake.ledger.connection import Ledger
from keeptake.ledger.overviews import example_audio_of_day

MOST_THUMBNAILS = 12
THUMBNAIL_S = 60.0  # of a take's beginning: ten minutes would cost ten times as much to decode


def draw_examples(ledger: Ledger, day: str, store: AudioStore) -> dict[str, bytes]:
    """Draw the three newest heard takes of a day: generation id → PNG of waveform, beats, sections, spectrum, chroma."""
    from keeptake.audio.analyze import Part
    from keeptake.hearing import draw

    drawn = {}
    for generation_id, sha256 in example_audio_of_day(ledger, day):
        parts = {name: Part(**part) for name, part in stored_parts(ledger, sha256).items()}
        with suppress(KeeptakeError), store.as_file(sha256) as path:
            drawn[generation_id] = draw(path, parts, title=generation_id, is_small=True)
    return drawn


def draw_thumbnails(store: AudioStore, files: Iterable[str]) -> dict[str, bytes]:
    """Draw the mel spectrograms of at most `MOST_THUMBNAILS` audio files, the first ones: SHA-256 → PNG of a few kilobytes."""
    from keeptake.hearing import draw_thumbnail

    drawn = {}
    for sha256 in islice(dict.fromkeys(files), MOST_THUMBNAILS):
        with suppress(KeeptakeError), store.as_file(sha256) as path:
            drawn[sha256] = draw_thumbnail(path, first_s=THUMBNAIL_S)
    return drawn
