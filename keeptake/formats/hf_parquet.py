"""Parquet shards with embedded audio that Hugging Face `datasets` recognises as Audio.

Conventions (measured with datasets 5.2.0): the footer's `huggingface` entry lists every column with a type equal to the file's,
audio is `struct<bytes: binary, path: string>` (large_binary is never recognised), shards are named
SPLIT-00000-of-00001.parquet, and media are stored without compression or dictionary. Bytes embedded, as `Dataset.to_parquet`
leaves paths of the writing machine.

Belongs here: the shards. Does not: reading them back with the package (`hugging_face.py`).
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from keeptake.formats.audiocraft import by_split
from keeptake.formats.readers import Reading
from keeptake.formats.sidecars import HF_SPLITS

if TYPE_CHECKING:
    import pyarrow as pa

HF_PARQUET_VERSION = "2"  # 2: the loudness is the clip's
FOLDER = "parquet"
SHARD_BYTES = 500 << 20  # shards stay under 2 GB
GROUP_BYTES = 64 << 20  # row groups stay under the viewer's 300 MB
COLUMNS = {
    "id": "string",
    "text": "string",
    "prompt": "string",
    "caption": "string",
    "tempo_bpm": "float64",
    "key": "string",
    "genre": "string",
    "mood": "string",
    "has_vocals": "bool",
    "loudness_lufs": "float64",
    "duration_s": "float64",
    "quality_score": "float64",
    "adherence": "float64",
    "liked": "bool",
    "rating": "int64",
    "used": "bool",
    "provider": "string",
    "model_used": "string",
    "licence": "string",
    "user": "string",
    "generation_id": "string",
    "parent": "string",
    "start_s": "float64",
    "group_id": "string",
}


def write(folder: Path, rows: pl.DataFrame, *, sample_rate_hz: int) -> None:
    """Write the shards of each split that has rows, with the clips that lie in its folder."""
    import pyarrow.parquet as pq

    schema = _schema(sample_rate_hz)
    (folder / FOLDER).mkdir(exist_ok=True)
    for split, split_rows in by_split(rows):
        shards = list(_shards(folder / split, split_rows))
        for number, shard in enumerate(shards):
            path = folder / FOLDER / f"{HF_SPLITS[split]}-{number:05d}-of-{len(shards):05d}.parquet"
            with pq.ParquetWriter(path, schema, compression="NONE", use_dictionary=False, write_statistics=False) as writer:
                for group in _parts(folder / split, shard, GROUP_BYTES):
                    writer.write_table(_table(folder / split, group, schema))


def _shards(folder: Path, rows: pl.DataFrame) -> Iterator[list[dict[str, Any]]]:
    return _parts(folder, rows.to_dicts(), SHARD_BYTES)


def _parts(folder: Path, rows: list[dict[str, Any]], most_bytes: int) -> Iterator[list[dict[str, Any]]]:
    """Split rows such that the clips of a part hold at most so many bytes."""
    part: list[dict[str, Any]] = []
    held = 0
    for row in rows:
        size = (folder / f"{row['id']}.flac").stat().st_size
        if part and held + size > most_bytes:
            yield part
            part, held = [], 0
        part.append(row)
        held += size
    if part:
        yield part


def _table(folder: Path, rows: list[dict[str, Any]], schema: "pa.Schema") -> "pa.Table":
    import pyarrow as pa

    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in COLUMNS}
    columns["audio"] = [{"bytes": (folder / f"{row['id']}.flac").read_bytes(), "path": f"{row['id']}.flac"} for row in rows]
    return pa.Table.from_pydict(columns, schema=schema)


def _schema(sample_rate_hz: int) -> "pa.Schema":
    import pyarrow as pa

    kinds = {"string": pa.string(), "float64": pa.float64(), "bool": pa.bool_(), "int64": pa.int64()}
    audio = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features: dict[str, Any] = {name: {"dtype": kind, "_type": "Value"} for name, kind in COLUMNS.items()}
    features["audio"] = {"sampling_rate": sample_rate_hz, "_type": "Audio"}
    fields = [(name, kinds[kind]) for name, kind in COLUMNS.items()]
    note = json.dumps({"info": {"features": features}}, separators=(",", ":"))
    return pa.schema([*fields, ("audio", audio)], metadata={"huggingface": note})


def read_back(folder: Path, split: str, *, rows_in: int) -> Reading:
    """Read a split's shards by the documented rules: audio must be recognised, every row there, every clip open."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq
    import soundfile

    reading = Reading("parquet", split, "documented rules of datasets 5.2", rows_in=rows_in)
    shards = sorted((folder / FOLDER).glob(f"{HF_SPLITS[split]}-*.parquet"))
    if not shards:
        return reading.fail("no shard is there")
    audio = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for number, path in enumerate(shards):
        if path.name != f"{HF_SPLITS[split]}-{number:05d}-of-{len(shards):05d}.parquet":
            return reading.fail(f"{path.name} is not shard {number} of {len(shards)}")
        try:
            file = pq.ParquetFile(path)
            note = json.loads((file.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
            listed = note.get("info", {}).get("features", {})
            if set(listed) != set(file.schema_arrow.names) or listed.get("audio", {}).get("_type") != "Audio":
                return reading.fail("the footer does not list every column, and audio as Audio: it loads as a plain struct")
            if file.schema_arrow.field("audio").type != audio:
                return reading.fail(f"audio is {file.schema_arrow.field('audio').type}, never recognised as Audio")
            for batch in file.iter_batches(batch_size=64, columns=["id", "audio"]):
                for row in batch.to_pylist():
                    if not row["audio"] or not row["audio"]["bytes"]:
                        reading.lose(row["id"], "no audio inside: only a path of the writing machine")
                        continue
                    soundfile.info(io.BytesIO(row["audio"]["bytes"]))
                    reading.rows_out += 1
        except (pa.ArrowException, soundfile.LibsndfileError, ValueError, KeyError) as error:
            return reading.fail(error)
    if reading.rows_out != rows_in:
        reading.lose("all", f"{reading.rows_out} rows of {rows_in} are there")
    return reading
