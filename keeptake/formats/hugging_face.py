"""Does it load? The real `datasets` and `webdataset` packages, run over a version in a process of their own.

Conventions: the child (`python -m keeptake.formats.hugging_face FOLDER`) reads its own cache, asks no network, and prints one
JSON object. `datasets` decodes audio by torchcodec, which needs FFmpeg's libraries: where the system has none, the child is
pointed at those that PyAV ships. Rows are counted in full, and a few clips of each split are decoded through the reader.

Belongs here: running the packages. Does not: their documented rules, which stand beside each format and hold without the
packages.
"""

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from keeptake.formats.readers import Reading
from keeptake.formats.sidecars import HF_SPLITS

PACKAGES = ("datasets", "webdataset")
DECODED_A_SPLIT = 4
TIMEOUT_S = 1800.0
_FFMPEG = ("avutil", "avcodec", "avformat", "avdevice", "avfilter", "swscale", "swresample")


def is_installed() -> bool:
    """Whether both packages are here."""
    return all(importlib.util.find_spec(name) is not None for name in PACKAGES)


def read_back(folder: Path, rows: Mapping[str, int]) -> list[Reading]:
    """Load a version with the real packages.

    Parameters
    ----------
    folder : Path
        The version.
    rows : Mapping
        How many rows each split should have; splits without rows are not asked for.

    Returns
    -------
    list of Reading
        A reading a way in and split.
    """
    ways = {
        "load_dataset(FOLDER)": "",
        "audiofolder": "",
        "parquet": "parquet",
        "webdataset(datasets)": "wds",
        "webdataset": "wds",
    }
    asked = [way for way, needs in ways.items() if (folder / needs).is_dir()]
    with tempfile.TemporaryDirectory(prefix="keeptake-gate-") as private:
        environment = {
            **os.environ,
            "HF_HOME": private,
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
            "LD_LIBRARY_PATH": os.pathsep.join(filter(None, [*_ffmpeg(Path(private)), os.environ.get("LD_LIBRARY_PATH", "")])),
        }
        command = [sys.executable, "-m", __name__, str(folder.resolve()), *asked]
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            done = subprocess.CompletedProcess(command, -1, "", f"no answer within {TIMEOUT_S:.0f} s")
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    readings = []
    try:
        answers = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        answers = {way: {"error": f"the reader's process ended with {done.returncode}: {last}"} for way in asked}
    for way in asked:
        package = "webdataset" if way == "webdataset" else "datasets"
        for split, count in rows.items():
            if count:
                reading = Reading(way, split, f"{package} {versions[package]}", rows_in=count)
                readings.append(_judged(reading, answers[way], HF_SPLITS[split]))
    return readings


def _judged(reading: Reading, answer: Mapping[str, Any], split: str) -> Reading:
    if "error" in answer:
        return reading.fail(answer["error"])
    found = answer["splits"].get(split)
    if found is None:
        return reading.fail(f"there is no split {split}, only {', '.join(answer['splits'])}")
    reading.rows_out = found["rows"]
    if found["rows"] != reading.rows_in:
        reading.lose("all", f"{found['rows']} rows of {reading.rows_in} are read")
    for problem in found["problems"]:
        reading.lose("some", problem)
    return reading


def _ffmpeg(private: Path) -> list[str]:
    """Folders in which a torchcodec without a system's FFmpeg finds PyAV's, under the names that it asks for."""
    av = importlib.util.find_spec("av")
    shipped = Path(av.origin or "").parent.parent / "av.libs" if av is not None else Path()
    named = {name: sorted(shipped.glob(f"lib{name}-*.so.*")) for name in _FFMPEG}
    if not all(named.values()):
        return []
    links = private / "ffmpeg"
    links.mkdir()
    for name, (library, *_) in named.items():
        major = library.name.partition(".so.")[2].split(".")[0]
        (links / f"lib{name}.so.{major}").symlink_to(library)
    return [str(links), str(shipped)]


def _load(folder: Path, way: str) -> dict[str, Any]:
    """Child: read by one way in, and say what came."""
    import datasets

    loads: dict[str, Callable[[], Any]] = {
        "load_dataset(FOLDER)": lambda: datasets.load_dataset(str(folder)),
        "audiofolder": lambda: datasets.load_dataset("audiofolder", data_dir=str(folder)),
        "parquet": lambda: datasets.load_dataset("parquet", data_dir=str(folder / "parquet"), streaming=True),
        "webdataset(datasets)": lambda: datasets.load_dataset("webdataset", data_dir=str(folder / "wds"), streaming=True),
    }
    splits = {}
    for split, rows in loads[way]().items():
        column = "flac" if way.startswith("webdataset") else "audio"
        problems = []
        if not isinstance(rows.features[column] if rows.features else datasets.Audio(), datasets.Audio):
            problems.append(f"{column} is {rows.features[column]}, not Audio")
        whole = rows.cast_column(column, datasets.Audio(decode=False)) if not problems else rows
        count = 0
        for row in whole:
            count += 1
            text = row["json"]["prompt"] if column == "flac" else row["text"]
            if not text:
                problems.append("a row has no text")
        for row in rows.take(DECODED_A_SPLIT) if not problems else ():
            if row[column].get_all_samples().data.shape[-1] < 1:
                problems.append("a clip decodes to nothing")
        splits[split] = {"rows": count, "problems": sorted(set(problems))}
    return {"splits": splits}


def _load_webdataset(folder: Path) -> dict[str, Any]:
    """Child: read the tars with the package of that name."""
    import io

    import soundfile
    import webdataset

    splits = {}
    for split, hf_split in HF_SPLITS.items():
        shards = sorted(str(path) for path in (folder / "wds").glob(f"{split}-*.tar"))
        if not shards:
            continue
        count, problems = 0, []
        for sample in webdataset.WebDataset(shards, shardshuffle=False):
            if not {"flac", "json"} <= set(sample) or not json.loads(sample["json"])["prompt"]:
                problems.append("a sample lacks its audio or its text")
                continue
            if count < DECODED_A_SPLIT and not soundfile.info(io.BytesIO(sample["flac"])).frames:
                problems.append("a clip decodes to nothing")
            count += 1
        splits[hf_split] = {"rows": count, "problems": sorted(set(problems))}
    return {"splits": splits}


def _answers(folder: Path, ways: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for way in ways:
        try:
            yield way, _load_webdataset(folder) if way == "webdataset" else _load(folder, way)
        except Exception as error:
            cause = error.__cause__ or error
            yield way, {"error": f"{type(cause).__name__}: {str(cause).splitlines()[0] if str(cause) else ''}"}


if __name__ == "__main__":
    print(json.dumps(dict(_answers(Path(sys.argv[1]), sys.argv[2:]))))
