"""Audio files that come without a record: each becomes a take of its own.

Conventions: the identifier is made of the file's name and its content, so that the same file again is a replay and another
content under the same name is another take. The prompt is the file's name in words; nothing else is claimed.

Belongs here: records of files that have none. Does not: whether a file holds audio (`custody/`), only whether its ending says so.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote

from keeptake.json_values import JSON
from keeptake.sources.settled import is_readable, is_settled, state_of
from keeptake.sources.source import BATCH_RECORDS, NEWS_WITHIN_S, Batch, RawRecord, text_of

AUDIO_ENDINGS = frozenset(
    (".wav", ".mp3", ".flac", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".mp4", ".aif", ".aiff", ".wma", ".webm")
)
_NOT_IN_ID = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class BareAudioSource:
    """The audio files of a folder that no manifest names."""

    folder: Path
    settle_s: float = 0.0
    is_recursive: bool = False
    claimed_by: tuple[Path, ...] = ()  # manifests: the files that they name arrive with their records

    @property
    def name(self) -> str:
        """Path of the folder."""
        return text_of(self.folder)

    @property
    def audio_root(self) -> Path | None:
        """The folder itself."""
        return self.folder

    def files(self) -> Iterator[Path]:
        """Finished audio files, by name."""
        below = _below(self.folder) if self.is_recursive else self.folder.iterdir()
        paths = sorted(path for path in below if path.suffix.lower() in AUDIO_ENDINGS and not path.name.startswith("."))
        manifests = [_named_in(path, str(state_of(path))) for path in self.claimed_by if path.is_file()] if paths else []
        for path in paths:
            if not any(path.name in named for named in manifests) and path.is_file() and is_settled(path, self.settle_s):
                yield path

    def batches(self, cursor: JSON | None) -> Iterator[Batch]:
        """Make a record of each file that the cursor has not seen as it is now."""
        seen = dict(cursor) if isinstance(cursor, dict) else {}
        present: dict[str, JSON] = {}
        records: list[RawRecord] = []
        for path in self.files():
            key, state = ascii(str(path.relative_to(self.folder))), state_of(path)
            if state is not None and seen.get(key) == state:
                present[key] = state
                continue
            raw = _record_of(path, self.folder)
            if raw is None or state_of(path) != state:
                continue  # still being written, or gone: it is looked at again the next time
            present[key] = state
            records.append(RawRecord(None, raw))
            if len(records) == BATCH_RECORDS:
                yield Batch(records, dict(present))
                records = []
        if records or present != seen:
            yield Batch(records, present)

    def has_news(self, cursor: JSON | None, *, within_s: float = NEWS_WITHIN_S) -> bool:
        """Whether there is a file that the cursor has not seen as it is now."""
        seen = cursor if isinstance(cursor, dict) else {}
        unseen = (path for path in self.files() if seen.get(ascii(str(path.relative_to(self.folder)))) != state_of(path))
        return any(is_readable(path) for path in unseen)


@lru_cache(maxsize=64)
def _named_in(manifest: Path, state: str) -> frozenset[str]:
    """Last parts of all texts in a manifest's records: names of files among them; `state` is of the file that is kept in mind.

    A line that is no record yet, half written or with a mistake in it, names whatever stands in it between quotes.
    """
    names: set[str] = set()
    for line in manifest.read_bytes().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            texts = os.fsdecode(line).split('"')
        else:
            texts = [text for text in record.values() if isinstance(text, str)] if isinstance(record, dict) else []
        for text in texts:
            last = text.rpartition("/")[2]
            names |= {last, unquote(last)}
    return frozenset(names)


def _below(folder: Path) -> Iterator[Path]:
    """All files under a folder; links to folders are not followed, so that no loop is endless."""
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place) / name for name in names)


def _record_of(path: Path, folder: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            identity = hashlib.file_digest(file, "sha256")
    except OSError:
        return None
    url = path.relative_to(folder).as_posix()
    words = re.sub(r"[\s_-]+", " ", path.stem).strip() or path.name
    identity.update(os.fsencode(url))
    record = {
        "generationId": f"{_NOT_IN_ID.sub('-', path.stem)[:80]}:{identity.hexdigest()[:24]}",
        "userId": "local",
        "userPrompt": words,
        "audioUrl": f"./{url}" if ":" in url else url,  # a colon in its first part would read as a scheme
        "format": path.suffix[1:].lower(),
        "provider": "folder",
    }
    return json.dumps(record).encode()
