"""Records that lie in files: a JSONL manifest with audio beside it, and folders of bare audio.

Conventions: relative audio URLs belong to the manifest's own folder. A file counts as finished once nobody wrote to it for
`SETTLE_S`; a manifest or an audio file that changes while it is read is left for the next time. In the watched folder each
subfolder is a source of its own, so that a delivery is best made aside and renamed into place.

Belongs here: which files a folder means, and reading manifests. Does not: making records of bare audio (`bare_audio.py`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from keeptake.errors import ConfigurationError
from keeptake.json_values import JSON
from keeptake.records import MAX_RECORD_BYTES
from keeptake.sources.bare_audio import BareAudioSource
from keeptake.sources.settled import SETTLE_S, is_readable, is_settled, state_of
from keeptake.sources.source import BATCH_RECORDS, NEWS_WITHIN_S, Batch, RawRecord, Source, text_of

MANIFEST = "generations.jsonl"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class ManifestSource:
    """A JSONL file, one record a line, with audio beside it."""

    path: Path
    settle_s: float = 0.0

    @property
    def name(self) -> str:
        """Path of the file."""
        return text_of(self.path)

    @property
    def audio_root(self) -> Path | None:
        """The folder that the file lies in."""
        return self.path.parent

    def batches(self, cursor: JSON | None) -> Iterator[Batch]:
        """Read all lines, unless the file is the one that the cursor saw to its end.

        A file that grew is read from its top again: what is known is replayed silently, and a line that changed is seen.
        """
        before = state_of(self.path)
        if before is None or before == cursor or not is_settled(self.path, self.settle_s):
            return
        records: list[RawRecord] = []
        for number, line in enumerate(_lines(self.path), 1):
            records.append(RawRecord(number, line))
            if len(records) == BATCH_RECORDS:
                yield Batch(records, None)
                records = []
        yield Batch(records, before if state_of(self.path) == before else None)

    def has_news(self, cursor: JSON | None, *, within_s: float = NEWS_WITHIN_S) -> bool:
        """Whether the file is finished and not the one that was read."""
        return is_settled(self.path, self.settle_s) and state_of(self.path) != cursor and is_readable(self.path)


def folder_sources(folder: Path) -> list[Source]:
    """Read a folder as it is meant: its `generations.jsonl`, else its other manifests, else its audio files.

    Raises
    ------
    ConfigurationError
        If there is neither.
    """
    folder = folder.resolve()
    if (folder / MANIFEST).is_file():
        return [ManifestSource(folder / MANIFEST)]
    if manifests := _manifests(folder):
        return [ManifestSource(path) for path in manifests]
    bare = BareAudioSource(folder, is_recursive=True)
    if not any(bare.files()):
        raise ConfigurationError(f"nothing to import in {folder}: expected {MANIFEST}, another .jsonl, or audio files")
    return [bare]


def incoming_sources(folder: Path) -> list[Source]:
    """Read the watched folder: manifests and bare audio at its top, and each subfolder for itself."""
    if not folder.is_dir():
        return []
    folder = folder.resolve()
    sources: list[Source] = []
    for place in (folder, *sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))):
        manifests = _manifests(place)
        sources += [ManifestSource(path, SETTLE_S) for path in manifests]
        # Audio that a manifest names arrives with its record; in a subfolder with a manifest all of it does.
        if place == folder or not manifests:
            claimed_by = tuple(path for path in manifests if place == folder)
            sources.append(BareAudioSource(place, SETTLE_S, is_recursive=place != folder, claimed_by=claimed_by))
    return sources


def _manifests(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.jsonl") if path.is_file() and not path.name.startswith("."))


def _lines(path: Path) -> Iterator[bytes]:
    """Lines without their ends, each cut a byte beyond what a record may have: one endless line must not fill the memory."""
    with path.open("rb") as file:
        is_first = True
        while line := file.readline(MAX_RECORD_BYTES + 2):
            rest = line
            while not rest.endswith(b"\n") and (rest := file.readline(1 << 20)):
                pass
            yield (line.removeprefix(_BYTE_ORDER_MARK) if is_first else line).rstrip(b"\r\n")
            is_first = False
