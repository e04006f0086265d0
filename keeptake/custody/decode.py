"""Bytes in, samples out: any audio file as blocks of float32.

Conventions: samples are float32, shape (n, channels), full scale ±1 (a float file may exceed it); rates in hertz, times in
seconds. soundfile decodes what it can (it is the fastest and sample exact), PyAV the rest. Neither ever sees a name or a URL:
both get an open file, and PyAV gets the demuxer that the content calls for, so that a playlist dressed as music opens nothing.

Belongs here: decoding. Does not: whether the samples are fit to be kept (`prove.py`), resampling or mixing (`keeptake.audio`).
"""

import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import av
import numpy as np
import soundfile

from keeptake.custody.frames import states_length
from keeptake.custody.probe import HEAD_BYTES, container_of, media_type_of
from keeptake.errors import AudioReason, AudioRefusedError

# Of four seconds memory is used again; larger blocks are new pages each time, whose first touch costs more than the work on them.
BLOCK_S = 4.0
MAX_BLOCK_SAMPLES = 8_000_000  # frames × channels: a block takes at most 32 MB, however many channels a header claims
MAX_CHANNELS = 32
SAMPLE_RATES_HZ = (1_000, 384_000)
MAX_DURATION_S = 1800.0
MIN_DURATION_S = 0.05

_SOUNDFILE_CONTAINERS = frozenset({"wav", "w64", "aiff", "flac", "ogg", "mp3", "caf", "au"})
_DEMUXERS = {"mp4": "mov", "webm": "matroska", "wma": "asf", "wavpack": "wv"}  # container → PyAV's name, where they differ
# The demuxer is chosen by us and no protocol is allowed: hls, concat and dash would fetch what a file names.
_AV_OPTIONS: dict[str, Any] = {"options": {"protocol_whitelist": "none"}, "metadata_errors": "ignore"}
_SOUNDFILE_CODECS = {
    "MPEG_LAYER_III": "mp3",
    "MPEG_LAYER_II": "mp2",
    "MPEG_LAYER_I": "mp1",
    "FLOAT": "pcm_f32",
    "DOUBLE": "pcm_f64",
}


@dataclass(frozen=True)
class AudioStream:
    """An open audio file: what its header says, and its samples as an iterator that may be used once."""

    sample_rate_hz: int
    channels: int
    format: str
    codec: str
    claimed_duration_s: float | None
    _frames: Iterator[np.ndarray] = field(repr=False)

    def blocks(self, block_s: float = BLOCK_S) -> Iterator[np.ndarray]:
        """Yield the samples in blocks of equal length, the last one shorter.

        Parameters
        ----------
        block_s : float, > 0
            Length of a block in seconds; blocks of very many channels are shorter, to bound memory.

        Yields
        ------
        np.ndarray [shape=(n, channels), dtype=float32]

        Raises
        ------
        AudioRefusedError
            Where decoding fails on the way (`undecodable`).
        """
        size = max(1, min(round(block_s * self.sample_rate_hz), MAX_BLOCK_SAMPLES // self.channels))
        waiting: list[np.ndarray] = []
        held = 0
        for frame in self._frames:
            waiting.append(frame)
            held += len(frame)
            if held < size:
                continue
            joined = waiting[0] if len(waiting) == 1 else np.concatenate(waiting)
            full = held // size * size
            yield from (joined[start : start + size] for start in range(0, full, size))
            waiting, held = [joined[full:]], held - full
        if held:
            yield waiting[0] if len(waiting) == 1 else np.concatenate(waiting)


@contextmanager
def open_audio(source: Path | bytes) -> Iterator[AudioStream]:
    """Open audio by its content.

    Parameters
    ----------
    source : Path or bytes
        A local file, or a whole file in memory.

    Yields
    ------
    AudioStream

    Raises
    ------
    AudioRefusedError
        `empty`, `not-audio` (no container that we decode), or `undecodable` (broken, no audio track, an absurd rate or number
        of channels).
    FileNotFoundError
        If the path does not exist.
    """
    with ExitStack() as stack:
        # Unbuffered: libsndfile reads from the descriptor's own position.
        file: IO[bytes] = stack.enter_context(source.open("rb", buffering=0) if isinstance(source, Path) else io.BytesIO(source))
        head = file.read(HEAD_BYTES)
        if not head:
            raise AudioRefusedError(AudioReason.EMPTY, "the file has no bytes; ask the provider for the take again")
        container = container_of(file)
        if container is None:
            raise AudioRefusedError(
                AudioReason.NOT_AUDIO, f"the content is {media_type_of(head)}, not an audio container we decode"
            )
        stream = None
        if container in _SOUNDFILE_CONTAINERS and b"OpusHead" not in head[:64]:  # libsndfile 1.2.2 stops inside sound Opus files
            stream = _open_soundfile(file, container, stack)
        if stream is None:
            stream = _open_av(file, container, stack)
        yield stream


def decode(source: Path | bytes) -> tuple[np.ndarray, int]:
    """Decode a whole file of at most `MAX_DURATION_S`.

    Returns
    -------
    (samples, sample_rate_hz)
        float32 of shape (n, channels), n ≥ 0.

    Raises
    ------
    AudioRefusedError
        As `open_audio`, and `too-long`.
    """
    with open_audio(source) as stream:
        blocks = [np.zeros((0, stream.channels), np.float32)]
        frames = 0
        for block in stream.blocks():
            frames += len(block)
            if frames > MAX_DURATION_S * stream.sample_rate_hz:
                raise AudioRefusedError(AudioReason.TOO_LONG, f"over {MAX_DURATION_S:.0f} s of audio; split it into takes")
            blocks.append(block)
        return np.concatenate(blocks), stream.sample_rate_hz


def _open_soundfile(file: IO[bytes], container: str, stack: ExitStack) -> AudioStream | None:
    """Open with libsndfile; None where it knows the container but not this kind of it."""
    is_guess = container == "mp3" and not states_length(file)  # of the first frames' bit rate, which may change
    file.seek(0)
    # The descriptor rather than the file object: libsndfile reads it without calling back into Python, and sees no name.
    handle: Any = file if isinstance(file, io.BytesIO) else file.fileno()
    try:
        audio = stack.enter_context(_StraightFile(handle, closefd=False))
    except soundfile.LibsndfileError:
        return None
    _check_shape(audio.samplerate, audio.channels)
    codec = _SOUNDFILE_CODECS.get(audio.subtype, audio.subtype.lower())
    claimed_s = audio.frames / audio.samplerate if audio.frames < 2**62 and not is_guess else None
    return AudioStream(audio.samplerate, audio.channels, container, codec, claimed_s, _soundfile_frames(audio))


class _StraightFile(soundfile.SoundFile):  # type: ignore[misc]  # the package is untyped
    """A file that is read from its beginning to its end, and nowhere else.

    soundfile seeks to where it is after each read. In an MP3 that loses the frames that the next ones borrow bits from: bursts of
    noise came out wrong by more than full scale after each block of 10 s, and mpg123 complained on standard error.
    """

    def seekable(self) -> bool:
        """Say no, which is what keeps soundfile from seeking."""
        return False


def _soundfile_frames(audio: soundfile.SoundFile) -> Iterator[np.ndarray]:
    size = max(1, min(round(BLOCK_S * audio.samplerate), MAX_BLOCK_SAMPLES // audio.channels))
    read = 0
    while True:
        try:
            frames = audio.read(size, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            at_s = read / audio.samplerate
            raise AudioRefusedError(AudioReason.UNDECODABLE, f"decoding stopped near {at_s:.2f} s: {error}") from error
        if not len(frames):
            return
        read += len(frames)
        yield frames


def _open_av(file: IO[bytes], container: str, stack: ExitStack) -> AudioStream:
    file.seek(0)
    try:
        source = stack.enter_context(av.open(file, "r", format=_DEMUXERS.get(container, container), **_AV_OPTIONS))
        if not source.streams.audio:
            raise AudioRefusedError(AudioReason.UNDECODABLE, f"the {container} file has no audio track")
        track = source.streams.audio[0]
        if track.codec_context is None:
            raise AudioRefusedError(AudioReason.UNDECODABLE, f"the {container} file's audio has a codec that is not known")
        track.codec_context.thread_count = 1  # the workers are the parallelism
        decoded = source.decode(track)
        # HE-AAC announces half of the rate that it decodes to: the first frame is believed, the header is not.
        first = next((frame for frame in decoded if frame.samples), None)
    except (av.FFmpegError, ValueError, EOFError) as error:
        raise AudioRefusedError(AudioReason.UNDECODABLE, f"the {container} file does not open: {error}") from error
    if first is None:
        raise AudioRefusedError(AudioReason.UNDECODABLE, f"the {container} file's audio track has no samples")
    _check_shape(first.sample_rate, first.layout.nb_channels)
    claimed_s = None
    if track.duration is not None and track.time_base is not None:
        claimed_s = float(track.duration * track.time_base)
    elif source.duration is not None and not source.streams.video:
        claimed_s = source.duration / av.time_base
    if container in ("aac", "ac3", "amr"):  # raw streams: FFmpeg guesses from the bit rate, which is no promise
        claimed_s = None
    name = "m4a" if container == "mp4" and not source.streams.video else container
    codec = track.codec_context.codec.canonical_name
    return AudioStream(first.sample_rate, first.layout.nb_channels, name, codec, claimed_s, _av_frames(first, decoded))


def _av_frames(first: av.AudioFrame, rest: Iterator[av.AudioFrame]) -> Iterator[np.ndarray]:
    convert = av.AudioResampler(format="fltp", layout=first.layout, rate=first.sample_rate)
    try:
        for part in convert.resample(first):
            yield part.to_ndarray().T
        for frame in rest:
            for part in convert.resample(frame):
                yield part.to_ndarray().T
    except (av.FFmpegError, ValueError) as error:
        raise AudioRefusedError(AudioReason.UNDECODABLE, f"decoding stopped: {error}") from error


def _check_shape(sample_rate_hz: int, channels: int) -> None:
    lowest, highest = SAMPLE_RATES_HZ
    if not lowest <= sample_rate_hz <= highest:
        raise AudioRefusedError(AudioReason.UNDECODABLE, f"a sample rate of {sample_rate_hz} Hz is outside {lowest}–{highest} Hz")
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioRefusedError(AudioReason.UNDECODABLE, f"{channels} channels are outside 1–{MAX_CHANNELS}")
