"""What every part of an analysis hears: one mono mix, one short and one long transform of a clip.

Conventions: samples are float32 with full scale at 1, blocks have shape (n, channels); spectra have frames first, shape
(frames, bins), so that each transform reads and writes contiguous memory. Frame `i` is centred on sample `i * hop`, with zeros
beyond the ends: librosa's `center=True, pad_mode="constant"`. Mono runs at `SAMPLE_RATE_HZ`, whatever the file's rate was: what
the parts need lies below 11 kHz, and resampling once with soxr costs less than transforming twice as many samples.

Belongs here: what several parts share. Does not: loudness, defects and the bandwidth limit, which need the file's own rate and
channels (`loudness.py`, `defects.py`, `spectrum.py` measure those block by block).
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import scipy.fft
import soxr
from scipy.signal import get_window

from keeptake.audio.loudness import SHORTEST_S, loudness_of
from keeptake.audio.samples import check_samples
from keeptake.errors import InvalidAudioError

SAMPLE_RATE_HZ = 22_050
NETWORK_RATE_HZ = 16_000
NETWORK_LOUDNESS_LUFS = -18.0  # ReplayGain's reference, and the median of 164 labelled takes
SHORT_FFT = 1024  # 46 ms: onsets, timbre
SHORT_STRIDE = 2
SHORT_HOP = 256  # 11.6 ms: a beat's place to within half of that before interpolation
LONG_FFT = 8192  # 372 ms, 2.7 Hz a bin: pitch classes from about 110 Hz
LONG_HOP = 4096
MEL_BANDS = 128
BANDS_A_GROUP = 16

BLOCK_S = 4.0  # longer blocks are new memory each time: with ten seconds a clip took a tenth more
SILENT_PEAK = 1e-3  # -60 dBFS: a mix that never rises above holds nothing to hear
CANCELLING_MIX_DB = -20.0  # a mix this far below its channels has cancelled: the first channel is heard in its stead
FRAMES_A_BATCH = 64  # a batch of short frames fits the second-level cache

Floats = np.ndarray


@dataclass(frozen=True)
class Frontend:
    """The shared view of one clip.

    Attributes
    ----------
    mono : np.ndarray [shape=(n,), float32]
        The mix at `SAMPLE_RATE_HZ`.
    mel : np.ndarray [shape=(frames, 128), float32]
        Mel power of the short transform, `SHORT_HOP` apart, Slaney's scale and norm, 0 to 11,025 Hz: librosa's `melspectrogram`
        on the same framing.
    short : np.ndarray [shape=(frames / 2 rounded up, 513), float32]
        Magnitudes of every `SHORT_STRIDE`th frame of the short transform: timbre needs no more, and ten minutes of all of them
        take 106 MB.
    long : np.ndarray [shape=(long frames, 4097), float32]
        Magnitudes of the long transform, `LONG_HOP` apart.
    """

    mono: Floats
    mel: Floats
    short: Floats
    long: Floats

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.mono.size / SAMPLE_RATE_HZ

    @property
    def is_silent(self) -> bool:
        """Whether the mix stays below `SILENT_PEAK`."""
        return peak(self.mono) < SILENT_PEAK


def even_blocks(blocks: Iterable[Floats], sample_rate_hz: int) -> Iterator[Floats]:
    """Cut a stream into blocks of exactly `BLOCK_S`, the last one shorter, and refuse what is not a number.

    An analysis must not depend on how a decoder happens to hand out its samples, so the cuts are made here.

    Parameters
    ----------
    blocks : iterable of np.ndarray [shape=(n,) or (n, channels)]
        Samples in any lengths, full scale at 1.
    sample_rate_hz : int
        Their rate.

    Yields
    ------
    np.ndarray [shape=(n, channels), float32, C order]

    Raises
    ------
    AudioRefusedError
        `non-finite-samples`, at the first block that holds one.
    InvalidAudioError
        If the number of channels changes or a block has no channel axis that makes sense.
    """
    size = round(BLOCK_S * sample_rate_hz)
    held: list[Floats] = []
    held_samples = 0
    channels: int | None = None
    for block in blocks:
        part = np.ascontiguousarray(block, dtype=np.float32)  # planar decoders give the channels' rows, turned
        part = part[:, None] if part.ndim == 1 else part
        if part.ndim != 2 or part.shape[1] == 0:
            raise InvalidAudioError(f"a block has shape (samples, channels), got {part.shape}")
        if channels not in (None, part.shape[1]):
            raise InvalidAudioError(f"the number of channels changed from {channels} to {part.shape[1]} within one file")
        channels = part.shape[1]
        if part.size:
            check_samples(part)
        held.append(part)
        held_samples += len(part)
        while held_samples >= size:
            joined = held[0] if len(held) == 1 else np.concatenate(held)
            yield joined[:size]
            held, held_samples = [joined[size:]], held_samples - size
    if held_samples:
        yield held[0] if len(held) == 1 else np.concatenate(held)


class MonoTake:
    """Collects the mix of a take, resampled as it comes.

    Parameters
    ----------
    sample_rate_hz : int
        Rate of what comes.
    to_hz : int
        Rate of what is kept.
    """

    def __init__(self, sample_rate_hz: int, to_hz: int = SAMPLE_RATE_HZ) -> None:
        self._stream = None if sample_rate_hz == to_hz else soxr.ResampleStream(sample_rate_hz, to_hz, 1, dtype="float32")
        # One buffer that grows: pieces, joined at the end, leave ten minutes' room behind that the process does not give back.
        self._samples = bytearray()

    def add(self, mix: Floats) -> None:
        """Take in one block's mix, shape (n,)."""
        self._samples += (mix if self._stream is None else self._stream.resample_chunk(mix)).data

    def samples(self) -> Floats:
        """Flush the resampler and return the whole mix, shape (n,)."""
        if self._stream is not None:
            self._samples += self._stream.resample_chunk(np.zeros(0, np.float32), last=True).data
            self._stream = None
        return np.frombuffer(self._samples, np.float32)


def whole_mix(blocks: Iterable[Floats], sample_rate_hz: int) -> Floats:
    """Mix a whole take to mono at `SAMPLE_RATE_HZ`, shape (n,); parameters and errors are those of `even_blocks`."""
    take = MonoTake(sample_rate_hz)
    for block in even_blocks(blocks, sample_rate_hz):
        take.add(mono_mix(block))
    return take.samples()


def for_networks(mono: Floats) -> Floats:
    """Turn a mix at `SAMPLE_RATE_HZ` into what networks hear, at `NETWORK_RATE_HZ`, shape (n,).

    Without its offset: to the speech detector a large one sounds like a voice. At one loudness (`level_for_networks`).
    """
    take, offset = MonoTake(SAMPLE_RATE_HZ, NETWORK_RATE_HZ), mono.mean() if mono.size else 0
    size = round(BLOCK_S * SAMPLE_RATE_HZ)
    for start in range(0, mono.size, size):
        take.add(mono[start : start + size] - offset)
    return level_for_networks(take.samples(), NETWORK_RATE_HZ)


def peak(mono: Floats) -> float:
    """Highest magnitude of a mix, shape (n,); without a copy of it, as its absolute values would be."""
    return max(float(mono.max()), -float(mono.min())) if mono.size else 0.0


def level_for_networks(mono: Floats, sample_rate_hz: int) -> Floats:
    """Bring a take to `NETWORK_LOUDNESS_LUFS`, in place; silence stays as it is.

    Networks compress as if audio came at one level: 6 dB down, genre was another in a quarter of the takes. Loudness, not the
    root mean square, so that neither sub-bass nor a pause sets the level of the rest.

    Parameters
    ----------
    mono : np.ndarray [shape=(n,), floating]
        Writable, without an offset; less than a gating block counts as if it went on repeating.
    sample_rate_hz : int

    Returns
    -------
    np.ndarray
        The same array; peaks may lie beyond full scale.
    """
    if (highest := peak(mono)) < SILENT_PEAK:
        return mono
    mono /= highest  # the standard's absolute gate is for pauses, not for takes that are faint throughout
    least = math.ceil(SHORTEST_S * sample_rate_hz)
    loudness_lufs = loudness_of(mono if mono.size >= least else np.resize(mono, least), sample_rate_hz)
    if loudness_lufs is not None:
        mono *= 10 ** ((NETWORK_LOUDNESS_LUFS - loudness_lufs) / 20)
    return mono


def mono_mix(block: Floats) -> Floats:
    """Mix a block to mono: the mean of its channels, as librosa's `to_mono`.

    In antiphase stereo that mean is silence although the take is not; such a block is heard through its first channel.

    Parameters
    ----------
    block : np.ndarray [shape=(n, channels), float32]

    Returns
    -------
    np.ndarray [shape=(n,), float32]
    """
    channels = block.shape[1]
    if channels == 1:
        return np.ascontiguousarray(block[:, 0])
    mix: Floats = block @ np.full(channels, 1 / channels, np.float32)  # a matrix product: `mean(axis=1)` is ten times slower
    energy = float(np.vdot(block, block)) / channels
    if float(np.dot(mix, mix)) < 10 ** (CANCELLING_MIX_DB / 10) * energy and _correlation(block) < 0:
        return np.ascontiguousarray(block[:, 0])
    return mix


def _correlation(block: Floats) -> float:
    """Inner product of the first two channels: its sign tells cancelling from one silent channel."""
    return float(np.dot(np.ascontiguousarray(block[:, 0]), np.ascontiguousarray(block[:, 1])))


def listen(mono: Floats) -> Frontend:
    """Compute the transforms that the parts share.

    Parameters
    ----------
    mono : np.ndarray [shape=(n,), float32]
        The mix at `SAMPLE_RATE_HZ`, of any length, an empty one included.

    Returns
    -------
    Frontend
    """
    mel = np.empty((1 + mono.size // SHORT_HOP, MEL_BANDS), np.float32)
    short = np.empty((-(-len(mel) // SHORT_STRIDE), 1 + SHORT_FFT // 2), np.float32)
    padded = np.pad(mono, LONG_FFT // 2)
    for start, power in _power_frames(padded, SHORT_FFT, SHORT_HOP):
        for bands, bins, weights in mel_weights():
            np.matmul(power[:, bins], weights, out=mel[start : start + len(power), bands])
        kept = power[::SHORT_STRIDE]  # batches begin at multiples of the stride
        np.sqrt(kept, out=short[start // SHORT_STRIDE : start // SHORT_STRIDE + len(kept)])
    long = np.empty((1 + mono.size // LONG_HOP, 1 + LONG_FFT // 2), np.float32)
    for start, power in _power_frames(padded, LONG_FFT, LONG_HOP):
        np.sqrt(power, out=long[start : start + len(power)])
    return Frontend(mono=mono, mel=mel, short=short, long=long)


def _power_frames(padded: Floats, size: int, hop: int) -> Iterator[tuple[int, Floats]]:
    """Power spectra of centred Hann frames, a batch at a time: (first frame, power of shape (batch, bins)).

    `padded` has `LONG_FFT // 2` zeros at either end, of which shorter frames need some.
    """
    first = (LONG_FFT - size) // 2
    samples = padded[first : padded.size - first]
    frames = np.lib.stride_tricks.sliding_window_view(samples, size)[::hop]
    window = get_window("hann", size).astype(np.float32)
    batch = max(1, FRAMES_A_BATCH * SHORT_FFT // size)
    for start in range(0, len(frames), batch):
        # scipy keeps float32, numpy would compute in float64
        bins = scipy.fft.rfft(frames[start : start + batch] * window).view(np.float32)
        bins *= bins
        yield start, bins[:, ::2] + bins[:, 1::2]


@cache
def mel_weights() -> list[tuple[slice, slice, Floats]]:
    """Slaney's mel filters of the short transform, librosa's by its own function, in groups: (bands, bins, weights of these).

    A filter is narrow: a group needs an eighth of the products of the whole matrix, and a quarter of its time.
    """
    from librosa.filters import mel

    filters = mel(sr=SAMPLE_RATE_HZ, n_fft=SHORT_FFT, n_mels=MEL_BANDS).T
    groups = []
    for first in range(0, MEL_BANDS, BANDS_A_GROUP):
        bands = slice(first, first + BANDS_A_GROUP)
        heard = np.flatnonzero(filters[:, bands].any(axis=1))
        bins = slice(int(heard[0]), int(heard[-1]) + 1)
        groups.append((bands, bins, np.ascontiguousarray(filters[bins, bands])))
    return groups
