"""From a file to an analysis: opens the audio, hands its samples to the parts, and puts the answer into a line.

Conventions: one file, one result; a file that does not decode is a result with a reason, never an exception. Networks are loaded
once a process. `keeptake analyze` prints `analysis_line` as JSON; its fields are a promise to programs:
`file, status, reason, duration_s, tempo_bpm, key, has_vocals, vocals_probability, loudness_lufs, beats_s, sections, flags`.

Belongs here: what stands between bytes and `keeptake.audio`. Does not: a measurement (`audio/`), the ledger, processes
(`compute.py`).
"""

import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any, Literal

import numpy as np

from keeptake.audio.analyze import FEATURE_COLUMNS, Networks, Part, analyze, features
from keeptake.audio.frontend import BLOCK_S, Frontend, listen, whole_mix
from keeptake.custody.decode import open_audio
from keeptake.custody.lengths import check_length
from keeptake.custody.probe import container_of
from keeptake.custody.prove import judge_duration
from keeptake.errors import AudioReason, AudioRefusedError
from keeptake.model_store import ModelStore

FLAGS = (
    *("has_clipping", "is_silent", "has_dc_offset", "is_antiphase", "is_one_sided", "has_abrupt_start", "has_abrupt_end"),
    *("has_clicks", "has_dropouts", "has_hum", "has_tempo_change", "is_loop"),
)


@dataclass(frozen=True)
class AudioInfo:
    """What decoding said about a file.

    Attributes
    ----------
    sample_rate_hz, channels, format, codec
        As decoded.
    claimed_duration_s : float or None
        What the header says.
    duration_s : float
        What was decoded.
    cpu_s : float
        CPU seconds of decoding and hearing together.
    """

    sample_rate_hz: int
    channels: int
    format: str
    codec: str
    claimed_duration_s: float | None
    duration_s: float
    cpu_s: float


def hear(
    source: Path | bytes, *, parts: Collection[str] | None = None, networks: Networks | None = None
) -> tuple[AudioInfo, dict[str, Part]]:
    """Decode a file once and hear it.

    Parameters
    ----------
    source : Path or bytes
        A local file, or a whole file in memory.
    parts : collection of str, optional
        All where None.
    networks : Networks, optional
        See `load_networks`; without them the parts that need them are null.

    Returns
    -------
    (info, parts)

    Raises
    ------
    AudioRefusedError
        If the file does not decode.
    """
    started_s = time.process_time()
    frames = 0
    with open_audio(source) as audio:

        def counted() -> Iterator[np.ndarray]:
            nonlocal frames
            for block in audio.blocks():
                frames += len(block)
                yield block

        heard = analyze(counted(), audio.sample_rate_hz, parts=parts, networks=networks)
        info = AudioInfo(
            sample_rate_hz=audio.sample_rate_hz,
            channels=audio.channels,
            format=audio.format,
            codec=audio.codec,
            claimed_duration_s=audio.claimed_duration_s,
            duration_s=frames / audio.sample_rate_hz,
            cpu_s=time.process_time() - started_s,
        )
    return info, heard


def draw(source: Path | bytes, parts: Mapping[str, Part], *, title: str, is_small: bool = False) -> bytes:
    """Draw one file's analysis; the samples are decoded once more, which costs a tenth of the drawing.

    Parameters
    ----------
    source : Path or bytes
    parts : mapping of Part
        From `hear`.
    title : str
    is_small : bool
        Whether every byte counts: at most 40 KB.

    Returns
    -------
    bytes
        A PNG.

    Raises
    ------
    AudioRefusedError
        If the file does not decode or holds samples that are no numbers.
    """
    from keeptake.audio.plot import LARGE, SMALL, picture

    return picture(_listen_to(source), parts, title=title, size=SMALL if is_small else LARGE)


def draw_thumbnail(source: Path | bytes, *, first_s: float) -> bytes:
    """Draw one file's mel spectrogram, a few kilobytes; only its first seconds are decoded.

    Parameters
    ----------
    source : Path or bytes
    first_s : float, > 0
        How much of it, to the next whole block of `BLOCK_S`.

    Raises
    ------
    AudioRefusedError
        As `draw`.
    """
    from keeptake.audio.thumbnail import thumbnail

    return thumbnail(_listen_to(source, blocks=ceil(first_s / BLOCK_S)).mel)


def _listen_to(source: Path | bytes, blocks: int | None = None) -> Frontend:
    """The front end of a file, or of its first blocks."""
    with open_audio(source) as audio:
        return listen(whole_mix(islice(audio.blocks(BLOCK_S), blocks), audio.sample_rate_hz))


@cache
def load_networks(store: ModelStore) -> Networks:
    """Load the networks of an analysis, once a process.

    Parameters
    ----------
    store : ModelStore

    Raises
    ------
    ModelMissingError
        If weights are neither in the store nor in an installed package; says what to install.
    """
    from keeptake.embedding.musicnn import Musicnn
    from keeptake.embedding.speech import load_speech

    return Networks(musicnn=Musicnn.load(store, "MTT"), speech=load_speech(store), style=Musicnn.load(store, "MSD"))


@dataclass(frozen=True)
class FileHeard:
    """One file's result.

    Attributes
    ----------
    file : str
        As it was named.
    status : {"ok", "quarantined"}
    reason, detail : str or None
        Why it does not decode; a reason of `AudioReason`, and a sentence.
    info : AudioInfo or None
    parts : dict of Part
        Empty where quarantined.
    """

    file: str
    status: Literal["ok", "quarantined"]
    reason: str | None
    detail: str | None
    info: AudioInfo | None
    parts: Mapping[str, Part]


def hear_file(
    path: Path, *, file: str | None = None, parts: Collection[str] | None = None, networks: Networks | None = None
) -> FileHeard:
    """Hear one file from anywhere; one that is missing, or is no audio that decodes whole, is a result too.

    Parameters
    ----------
    path : Path
    file : str, optional
        The name under which the result stands; the path where None.
    parts, networks
        See `hear`.
    """
    name = str(path) if file is None else file
    try:
        info, heard = hear(path, parts=parts, networks=networks)
        reasons = sorted({part.reason for part in heard.values() if part.reason is not None})
        if AudioReason.NON_FINITE_SAMPLES not in reasons:  # reading ended there, which says nothing of the file's length
            judge_duration(info.duration_s, promised_s=info.claimed_duration_s, container=info.format)
            with path.open("rb") as opened:
                check_length(opened, container_of(opened) or "")
    except AudioRefusedError as refusal:
        return FileHeard(name, "quarantined", str(refusal.reason), refusal.detail, None, {})
    except OSError as error:
        return FileHeard(name, "quarantined", "not-found", f"{error.strerror}: {path}", None, {})
    if not any(part.status == "ok" for part in heard.values()):
        return FileHeard(name, "quarantined", reasons[0], f"nothing can be heard: {', '.join(reasons)}", info, heard)
    return FileHeard(name, "ok", None, None, info, heard)


def analysis_line(heard: FileHeard) -> dict[str, Any]:
    """Flatten one result to the line that `keeptake analyze` prints.

    `bpm` and `vocals` repeat `tempo_bpm` and `has_vocals` under the names that scoring scripts read. The name of a file is
    printed as it was given, so that labels match when the command runs in the folder that their names are relative to. `parts`
    holds everything that was heard, in the types of `keeptake.audio.record`; `versions` and `parts_cpu_s` say of each part what
    code heard it and how long that took.

    Parameters
    ----------
    heard : FileHeard

    Returns
    -------
    dict
        Plain JSON, the promised fields first.
    """
    columns = features(heard.parts)
    rhythm, structure, defects, spectrum = (
        heard.parts[name].values if name in heard.parts else {} for name in ("rhythm", "structure", "defects", "spectrum")
    )
    flags = columns | defects | spectrum  # some faults are in no column
    promised = {
        "file": heard.file,
        "status": heard.status,
        "reason": heard.reason,
        "duration_s": None if heard.info is None else heard.info.duration_s,
        "tempo_bpm": columns["tempo_bpm"],
        "key": columns["key"],
        "has_vocals": columns["has_vocals"],
        "vocals_probability": columns["vocals_probability"],
        "loudness_lufs": columns["loudness_lufs"],
        "beats_s": rhythm.get("beats_s"),
        "sections": structure.get("sections"),
        "flags": [flag for flag in FLAGS if flags.get(flag)],
        "bpm": columns["tempo_bpm"],
        "vocals": columns["has_vocals"],
    }
    rest = {column: columns[column] for group in FEATURE_COLUMNS.values() for column in group if column not in promised}
    nulls = {name: part.reason for name, part in heard.parts.items() if part.status == "null"}
    values = {name: part.values for name, part in heard.parts.items() if part.status == "ok"}
    made = {
        "versions": {name: part.version for name, part in heard.parts.items()},
        "parts_cpu_s": {name: part.cpu_s for name, part in heard.parts.items()},
        "cpu_s": None if heard.info is None else heard.info.cpu_s,
    }
    return promised | rest | {"detail": heard.detail, "null_parts": nulls} | made | {"parts": values}
