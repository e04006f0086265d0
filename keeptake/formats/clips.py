"""Published audio: a clip of a take as FLAC at the rate and channels that trainers want.

Conventions: samples are float32, shape (n, channels); files are 16-bit FLAC, written aside and renamed, so that a file that is
there is whole. Loudness stays as it was unless the policy asks; peaks that mixing or resampling raised are brought below full
scale. Belongs here: bytes of a take to files of its clips. Does not: where to cut (`keeptake/curation/segments.py`).
"""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

from keeptake.audio.loudness import loudness_of
from keeptake.custody.decode import decode

CLIPS_VERSION = "3"  # 2: the gain is of the clip's own loudness as it is published; 3: that of the written clip is told
MAX_PEAK = 0.999
MIN_PEAK = 10 ** (-60 / 20)  # stable-audio-tools skips what is quieter, and recurses without end where all of a set is
BITS = "PCM_16"
MASTERS = "masters"

ReadAudio = Callable[[str], bytes]


class ClipWanted(NamedTuple):
    """A clip to be written: where it lies in its take, and where its file goes."""

    id: str
    path: Path
    start_s: float
    end_s: float
    loudness_lufs: float | None  # what it is brought to; None: left as it is
    master_path: Path | None


class ClipWritten(NamedTuple):
    """A clip's file.

    Attributes
    ----------
    id : str
    frames : int
        Length in samples at the published rate.
    peak : float in [0, 1]
        Before 16 bits.
    loudness_lufs : float or None
        As it is written, after any gain; None for less than a gating block of 0.4 s, or a clip that was not written.
    """

    id: str
    frames: int
    peak: float
    loudness_lufs: float | None


def write_clips(audio: bytes, wanted: Sequence[ClipWanted], sample_rate_hz: int) -> list[ClipWritten]:
    """Decode a take once and write its clips; a clip quieter than `MIN_PEAK` is measured, and not written.

    Raises
    ------
    AudioRefusedError
        If the bytes do not decode.
    OSError
        If a file cannot be written.
    """
    samples, own_rate_hz = decode(audio)
    written = []
    for clip in wanted:
        part = samples[round(clip.start_s * own_rate_hz) : round(clip.end_s * own_rate_hz)]
        mono = to_rate(part.mean(axis=1, dtype=np.float32), own_rate_hz, sample_rate_hz)
        gain_db = 0.0 if clip.loudness_lufs is None else gain_to(clip.loudness_lufs, mono, sample_rate_hz)
        mono = limited(mono, gain_db=gain_db)
        peak = float(np.abs(mono).max(initial=0.0))
        loudness_lufs = None
        if peak >= MIN_PEAK:
            loudness_lufs = loudness_of(mono, sample_rate_hz)
            _write_flac(clip.path, mono, sample_rate_hz)
            if clip.master_path is not None:
                _write_flac(clip.master_path, limited(part, gain_db=gain_db), own_rate_hz)
        # A thousandth of a unit is less than 16 bits keep, and the same on every machine that rebuilds the version.
        rounded_lufs = None if loudness_lufs is None else round(loudness_lufs, 3)
        written.append(ClipWritten(clip.id, mono.shape[0], peak, rounded_lufs))
    return written


def finest_folder(split: str, *, has_master: bool) -> str:
    """Folder, within a version, of a split's clips for trainers at full rate and in stereo: the masters where there are any."""
    return f"{MASTERS}/{split}" if has_master else split


def to_rate(mono: np.ndarray, own_rate_hz: int, sample_rate_hz: int) -> np.ndarray:
    """Resample mono audio with soxr's high quality; the length is exact to one sample."""
    if own_rate_hz == sample_rate_hz:
        return mono
    resampled: np.ndarray = soxr.resample(mono, own_rate_hz, sample_rate_hz)
    return resampled


def gain_to(loudness_lufs: float, mono: np.ndarray, sample_rate_hz: int) -> float:
    """Gain in dB that brings a clip to a loudness; 0 where it has none: silence, or less than a gating block of 0.4 s.

    Of the clip as it is published: its take's loudness is that of other channels and other seconds, up to 13 LU away.
    """
    own_lufs = loudness_of(mono, sample_rate_hz)
    return 0.0 if own_lufs is None else loudness_lufs - own_lufs


def limited(samples: np.ndarray, *, gain_db: float = 0.0) -> np.ndarray:
    """Apply a gain, and scale the whole where a sample would exceed full scale: nothing is clipped, nothing else changed."""
    louder = samples * np.float32(10 ** (gain_db / 20)) if gain_db else samples
    peak = float(np.abs(louder).max(initial=0.0))
    return louder * np.float32(MAX_PEAK / peak) if peak > MAX_PEAK else louder


def _write_flac(path: Path, samples: np.ndarray, sample_rate_hz: int) -> None:
    encoded = io.BytesIO()
    soundfile.write(encoded, samples, sample_rate_hz, format="FLAC", subtype=BITS)
    partial = path.with_suffix(".partial")
    partial.write_bytes(encoded.getbuffer())
    partial.replace(path)
