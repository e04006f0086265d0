"""How takes are shown to people who listen: neighbours and groups of duplicates, with spectrograms and a way to the sound.

Conventions: Markdown for the UI, which keeps images that are inside the text and links to http, and drops players, HTML and
files. Belongs here: these two views. Does not: the queries (`ledger/`), the drawing (`keeptake/audio/thumbnail.py`).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote

import dagster as dg
import polars as pl

from assets.report import escaped, inline, markdown_table
from keeptake.audio_store import AudioStore, key_of
from keeptake.curation.duplicates import DuplicatePair, Group
from keeptake.ledger.overviews import Take
from keeptake.settings import Settings, http_address

SHOWN_GROUPS = 6
MOST_ROWS = 8  # members of a group, and pairs of one
NAMED_BY = 8  # hex digits of an object's name
_COLUMNS = ("take", "prompt", "heard", "spectrogram", "sound")
_EVIDENCE = ("pair", "offset", "bit error", "speed", "rotation", "matched", "cosine")


class Shown(NamedTuple):
    """What is known of the takes of a view, by SHA-256 of their audio; what has no entry is shown without."""

    takes: Mapping[str, Take]
    thumbnails: Mapping[str, bytes]
    store: AudioStore
    api: str | None  # address of an API that asks for no key, which a link could not bring along


def open_api(chosen: Settings) -> str | None:
    """Address at which a browser hears takes, None where the API wants a key."""
    return http_address(chosen.api_host, chosen.api_port) if chosen.auth == "none" and chosen.api_port else None


def neighbours(found: pl.DataFrame, shown: Shown) -> dg.MarkdownMetadataValue:
    """Examples, each followed by the takes that sound most like it.

    Parameters
    ----------
    found : pl.DataFrame
        `example, neighbour` (SHA-256), `cosine`.
    """
    rows = []
    for (example,), near in found.group_by("example", maintain_order=True):
        rows.append(["**example**", *_cells(str(example), shown)])
        for sha256, cosine in near.select("neighbour", "cosine").iter_rows():
            rows.append([f"{cosine:.3f}", *_cells(sha256, shown)])
    if not rows:
        return dg.MetadataValue.md("No neighbours: a space needs two vectors.")
    return dg.MetadataValue.md("\n\n".join([markdown_table(["cosine", *_COLUMNS], rows), *_objects(files_of(found), shown)]))


def duplicate_groups(found: Sequence[Group], shown: Shown) -> dg.MarkdownMetadataValue:
    """Whole groups of duplicates: their members, and the evidence of the pairs that connect them.

    Parameters
    ----------
    found : sequence of Group
        Members and pairs named by SHA-256.
    """
    if not found:
        return dg.MetadataValue.md("No duplicates.")
    members = (member for group in found for member in group.members[:MOST_ROWS])
    return dg.MetadataValue.md("\n\n".join([*(_group(group, shown) for group in found), *_objects(members, shown)]))


def files_of(found: pl.DataFrame) -> list[str]:
    """The audio files of `neighbours`, each once, in the order of its rows."""
    return list(dict.fromkeys(sha256 for pair in found.select("example", "neighbour").iter_rows() for sha256 in pair))


def _group(group: Group, shown: Shown) -> str:
    members = [_cells(member, shown) for member in group.members[:MOST_ROWS]]
    pairs = sorted(group.pairs, key=lambda pair: pair.bit_error)[:MOST_ROWS]
    left = [
        f"{len(of) - MOST_ROWS:,} more {name}"
        for name, of in (("files", group.members), ("pairs", group.pairs))
        if len(of) > MOST_ROWS
    ]
    return "\n\n".join(
        [
            f"**{_size(group, shown)}**" + (f" ({', '.join(left)})" if left else ""),
            markdown_table(_COLUMNS, members),
            markdown_table(_EVIDENCE, [_evidence(pair, shown) for pair in pairs]),
        ]
    )


def _size(group: Group, shown: Shown) -> str:
    """How many takes and files a group has: many takes may have one file, and an erased one's file counts as one take."""
    takes = sum(shown.takes[member].takes if member in shown.takes else 1 for member in group.members)
    files = len(group.members)
    return f"{takes:,} takes of one sound" + (f", in {files:,} files" if takes != files else "")


def _cells(sha256: str, shown: Shown) -> list[str]:
    picture = inline(shown.thumbnails[sha256], "") if sha256 in shown.thumbnails else ""
    take = shown.takes.get(sha256)
    if take is None:
        return [_name(sha256, shown), "", "", picture, ""]
    heard = [
        "" if take.duration_s is None else f"{take.duration_s:.1f} s",
        "" if take.tempo_bpm is None else f"{take.tempo_bpm:.1f} BPM",
        take.key or "",
    ]
    named = f"`{sha256[:NAMED_BY]}`"
    play = f"[play]({shown.api}/api/training-metadata/{quote(take.generation_id, safe='')}/audio)" if shown.api else named
    return [_name(sha256, shown), escaped(take.prompt), escaped(", ".join(filter(None, heard))), picture, play]


def _objects(files: Iterable[str], shown: Shown) -> list[str]:
    """Where the sound lies, below the tables, which a path as long as its hash would push aside."""
    if shown.api:
        return []
    places = (shown.store.local_path(sha256) or f"{shown.store.url}/{key_of(sha256)}" for sha256 in dict.fromkeys(files))
    return ["The sound, as objects in the store:", "\n".join(f"- `{place}`" for place in places)]


def _name(sha256: str, shown: Shown) -> str:
    take = shown.takes.get(sha256)
    if take is None:
        return f"an erased take ({sha256[:NAMED_BY]})"
    return escaped(take.generation_id) + (f" and {take.takes - 1:,} more of this file" if take.takes > 1 else "")


def _evidence(pair: DuplicatePair, shown: Shown) -> list[str]:
    return [
        f"{_name(pair.a, shown)} – {_name(pair.b, shown)}",
        f"{pair.offset_s:+.2f} s",
        f"{pair.bit_error:.3f}",
        f"× {pair.speed:.3f}",
        f"{pair.rotation:+.1f} semitones",
        f"{pair.matched_s:.1f} s",
        "" if pair.cosine is None else f"{pair.cosine:.3f}",
    ]
