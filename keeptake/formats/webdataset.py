"""WebDataset tars, as LAION's tools, `webdataset` and stable-audio-tools read them.

Conventions: a sample's key is its file name up to the *first* dot, its members lie side by side, every `.json` has the same keys
with the same types (a null among the first five samples that is a number later stops Hugging Face's loader): what is not known is
`""` or 0.0. Tars hold no times, no owners, and members sorted by name, so that equal rows give equal bytes.

Belongs here: the tars. Does not: the clips (`clips.py`), reading with the package (`hugging_face.py`).
"""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from keeptake.formats.audiocraft import by_split
from keeptake.formats.audiofolder import metadata
from keeptake.formats.readers import Reading
from keeptake.formats.sidecars import line

WEBDATASET_VERSION = "2"  # 2: generation_id
FOLDER = "wds"
SHARD_BYTES = 1 << 30


def write(folder: Path, rows: pl.DataFrame, *, sample_rate_hz: int) -> None:
    """Write the tars of each split that has rows, with the clips that lie in its folder."""
    (folder / FOLDER).mkdir(exist_ok=True)
    for split, split_rows in by_split(rows):
        shard: tarfile.TarFile | None = None
        number = written = 0
        for row in split_rows.iter_rows(named=True):
            if shard is None or written > SHARD_BYTES:
                if shard is not None:
                    shard.close()
                path = folder / FOLDER / f"{split}-{number:06d}.tar"
                shard, number, written = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT), number + 1, 0  # noqa: SIM115
            audio = (folder / split / f"{row['id']}.flac").read_bytes()
            _add(shard, f"{row['id']}.flac", audio)
            _add(shard, f"{row['id']}.json", line(sample(row, sample_rate_hz)).encode())
            written += len(audio)
        if shard is not None:
            shard.close()


def sample(row: Mapping[str, Any], sample_rate_hz: int) -> dict[str, Any]:
    """Describe a clip: LAION's `text`, `tag` and `original_data`, and `prompt` for stable-audio-tools."""
    described = metadata(row, sample_rate_hz)
    del described["file_name"]
    said = {name: described.pop(name) for name in ("text", "provider", "licence", "generation_id", "parent")}
    described["user_prompt"] = described.pop("prompt")
    original = {"title": "", "provider": said["provider"], "license": said["licence"]}
    original |= {name: said[name] for name in ("generation_id", "parent")}
    tag = [word for word in (described["genre"], described["mood"], *row["instruments"]) if word]
    return {"prompt": said["text"], "text": [said["text"]], "tag": tag or ["music"], **described, "original_data": original}


def _add(shard: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = len(content), 0, 0o644
    shard.addfile(member, io.BytesIO(content))


def read_back(folder: Path, split: str, *, rows_in: int) -> Reading:
    """Read a split's tars by the documented rules of webdataset, Hugging Face's loader and LAION."""
    reading = Reading("webdataset-rules", split, "documented rules of webdataset 1.0 and LAION", rows_in=rows_in)
    shards = sorted((folder / FOLDER).glob(f"{split}-*.tar"))
    if not shards:
        return reading.fail("no tar is there")
    try:
        samples = [sample for path in shards for sample in _samples(path)]
    except (tarfile.TarError, ValueError) as error:
        return reading.fail(error)
    kinds: dict[str, str] | None = None
    for key, members in samples:
        try:
            if set(members) != {"flac", "json"}:
                raise ValueError(f"members {sorted(members)}, expected flac and json")
            described = json.loads(members["json"])
            found = {name: type(value).__name__ for name, value in described.items()}
            kinds = kinds or found
            if found != kinds:
                raise ValueError("keys or types differ from the first sample's: the loader stops")
            if not described["text"] or not described["prompt"]:
                raise ValueError("no text: the sample is dropped")
        except (ValueError, KeyError) as error:
            reading.lose(key, error)
        else:
            reading.rows_out += 1
    if len(samples) != rows_in:
        reading.lose("all", f"{len(samples)} samples of {rows_in} are there: keys with a dot are merged")
    return reading


def _samples(path: Path) -> list[tuple[str, dict[str, bytes]]]:
    """Group a tar's members as the reader does: neighbours with one key, which ends at the first dot."""
    samples: list[tuple[str, dict[str, bytes]]] = []
    keys: set[str] = set()
    with tarfile.open(path) as shard:
        for member in shard:
            key, _, suffix = member.name.partition(".")
            if not samples or samples[-1][0] != key:
                if key in keys:
                    raise ValueError(f"the members of {key} do not lie side by side")
                keys.add(key)
                samples.append((key, {}))
            if suffix.lower() in samples[-1][1]:
                raise ValueError(f"{key} has two members .{suffix}")
            content = shard.extractfile(member)
            samples[-1][1][suffix.lower()] = content.read() if content is not None and suffix == "json" else b""
    return samples
