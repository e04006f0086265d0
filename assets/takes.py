"""How takes are shown to people who listen: neighbours and groups of duplicates, with spectrograms and a way to the sound.

Conventions: Markdown for the UI, which keeps images that are inside the text and links to http, and drops players, HTML and
files. Belongs here: these two views. Does not: the queries (`ledger/`), the drawing (`keeptake/audio/thumbnail.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from urllib.parse import quote

import dagster as dg
import polars as pl

from assets.report import escaped, inline, markdown_table
from keeptake.audio_store import AudioStore, key_of
from keeptake.curation.duplicates import DuplicatePair, Group
from keeptake.ledger.overviews import Take
from keeptake.settings import Settings

SHOWN_GROUPS = 6
MOST_ROWS = 8  # members of a group, and pairs of one
_COLUMNS = ("take", "prompt", "heard", "spectrogram", "listen")
_EVIDENCE = ("pair", "offset", "bit error", "speed", "rotation", "matched", "cosine")

Listen = Callable[[Take], str]


def ways_to_listen(store: AudioStore, chosen: Settings) -> Listen:
    """How a take is heard from the UI: a link where the API asks for no key, the place of its object otherwise."""

    def link(take: Take) -> str:
        name = quote(take.generation_id, safe="")
        return f"[play](http://{chosen.api_host}:{chosen.api_port}/api/training-metadata/{name}/audio)"

    def place(take: Take) -> str:
        return f"`{store.local_path(take.audio_sha256) or f'{store.url}/{key_of(take.audio_sha256)}'}`"

    return link if chosen.auth == "none" and chosen.api_port else place


def neighbours(
    found: pl.DataFrame, takes: Mapping[str, Take], thumbnails: Mapping[str, bytes], listen: Listen
) -> dg.MarkdownMetadataValue:
    """Examples, each followed by the takes that sound most like it.

    Parameters
    ----------
    found : pl.DataFrame
        `example, neighbour` (SHA-256), `cosine`.
    takes, thumbnails
        By SHA-256; what has none is shown without.
    """
    rows = []
    for (example,), near in found.group_by("example", maintain_order=True):
        rows.append(["**example**", *_cells(str(example), takes, thumbnails, listen)])
        for sha256, cosine in near.select("neighbour", "cosine").iter_rows():
            rows.append([f"{cosine:.3f}", *_cells(sha256, takes, thumbnails, listen)])
    return dg.MetadataValue.md(markdown_table(["cosine", *_COLUMNS], rows) if rows else "A space needs two vectors.")


def duplicate_groups(
    found: Sequence[Group], takes: Mapping[str, Take], thumbnails: Mapping[str, bytes], listen: Listen
) -> dg.MarkdownMetadataValue:
    """Whole groups of duplicates: their members, and the evidence of the pairs that connect them.

    Parameters
    ----------
    found : sequence of Group
        Members and pairs named by SHA-256.
    takes, thumbnails
        By SHA-256; what has none is shown without.
    """
    return dg.MetadataValue.md("\n\n".join(_group(group, takes, thumbnails, listen) for group in found) or "No duplicates.")


def _group(group: Group, takes: Mapping[str, Take], thumbnails: Mapping[str, bytes], listen: Listen) -> str:
    members = [_cells(member, takes, thumbnails, listen) for member in group.members[:MOST_ROWS]]
    pairs = sorted(group.pairs, key=lambda pair: pair.bit_error)[:MOST_ROWS]
    left = [
        f"{len(of) - MOST_ROWS:,} more {name}"
        for name, of in (("members", group.members), ("pairs", group.pairs))
        if len(of) > MOST_ROWS
    ]
    return "\n\n".join(
        [
            f"**{len(group.members):,} takes of one sound**" + (f" ({', '.join(left)})" if left else ""),
            markdown_table(_COLUMNS, members),
            markdown_table(_EVIDENCE, [_evidence(pair, takes) for pair in pairs]),
        ]
    )


def _cells(sha256: str, takes: Mapping[str, Take], thumbnails: Mapping[str, bytes], listen: Listen) -> list[str]:
    picture = inline(thumbnails[sha256], "") if sha256 in thumbnails else ""
    if sha256 not in takes:
        return [_name(sha256, takes), "", "", picture, ""]
    take = takes[sha256]
    heard = [
        "" if take.duration_s is None else f"{take.duration_s:.1f} s",
        "" if take.tempo_bpm is None else f"{take.tempo_bpm:.1f} BPM",
        take.key or "",
    ]
    return [_name(sha256, takes), escaped(take.prompt), escaped(", ".join(filter(None, heard))), picture, listen(take)]


def _name(sha256: str, takes: Mapping[str, Take]) -> str:
    if sha256 not in takes:
        return f"an erased take ({sha256[:8]})"
    take = takes[sha256]
    return escaped(take.generation_id) + (f" and {take.takes - 1:,} more" if take.takes > 1 else "")


def _evidence(pair: DuplicatePair, takes: Mapping[str, Take]) -> list[str]:
    return [
        f"{_name(pair.a, takes)} – {_name(pair.b, takes)}",
        f"{pair.offset_s:+.2f} s",
        f"{pair.bit_error:.3f}",
        f"× {pair.speed:.3f}",
        f"{pair.rotation:+.1f} semitones",
        f"{pair.matched_s:.1f} s",
        "" if pair.cosine is None else f"{pair.cosine:.3f}",
    ]
