"""Is it music that can be kept? Every sample is decoded once, measured, and what is merely odd is told from what is broken.

Conventions: levels are relative to full scale (1.0); a flag names an oddity of legal audio, a reason refuses. What the record,
the server, the file's name and its tags claim is compared, never believed.

Belongs here: the proof of one local file, run in a worker process. Does not: what the music is like (`keeptake.audio`).
"""

import resource
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keeptake.audio.samples import check_samples
from keeptake.custody.decode import MAX_DURATION_S, MIN_DURATION_S, open_audio
from keeptake.custody.lengths import check_length
from keeptake.custody.probe import container_of
from keeptake.errors import AudioReason, AudioRefusedError

SILENT_PEAK = 1e-4  # −80 dBFS: below half a step of 12 bits nothing is meant to be heard
NEAR_SILENT_RMS = 1e-3  # −60 dBFS
DC_OFFSET = 0.02
CLIPPED_LEVEL = 0.999
CLIPPED_SHARE = 1e-4
ANTIPHASE_CORRELATION = -0.9
ONE_SIDED_RATIO = 1e-4  # energy of one side over the other: −40 dB
MOST_WRITTEN_BYTES = 1 << 20
DURATION_TOLERANCE = 0.01  # of a promised or claimed duration
DURATION_SLACK_S = 0.15  # encoders' padding: up to three MP3 frames at 22.05 kHz at either end


@dataclass(frozen=True)
class Proof:
    """What a file was measured to be.

    Attributes
    ----------
    flags : tuple of str
        Sorted: `silent`, `near-silent`, `dc-offset`, `clipping`, `over-full-scale`, `antiphase`, `one-sided`, `multichannel`,
        `no-declared-length`, `trailing-bytes`, `cut-last-frame`, `longer-than-declared`.
    measures : dict
        `peak`, `rms`, `dc_offset` (of the worst channel), `clipped_share`, and of stereo `stereo_correlation` and
        `side_energy_ratio` (the weaker over the stronger); null where undefined.
    """

    format: str
    codec: str
    duration_s: float
    sample_rate_hz: int
    channels: int
    flags: tuple[str, ...]
    measures: dict[str, float | None]


def prove(path: Path) -> Proof:
    """Decode a whole file and measure it.

    Parameters
    ----------
    path : Path
        A local file; its name is not looked at.

    Returns
    -------
    Proof

    Raises
    ------
    AudioRefusedError
        `empty`, `not-audio`, `undecodable`, `truncated`, `too-short`, `too-long`, `non-finite-samples`.
    """
    with path.open("rb") as file:  # first: of a cut file the decoder only says that it does not open
        container = container_of(file)
        flags = check_length(file, container) if container else []
    with open_audio(path) as stream:
        tally = _Tally(stream.channels)
        for block in stream.blocks():
            tally.add(block)
            if tally.frames > MAX_DURATION_S * stream.sample_rate_hz:
                raise AudioRefusedError(AudioReason.TOO_LONG, f"over {MAX_DURATION_S:.0f} s of audio; split it into takes")
        duration_s = tally.frames / stream.sample_rate_hz
        flags += judge_duration(duration_s, promised_s=stream.claimed_duration_s, container=stream.format)
    return Proof(
        format=stream.format,
        codec=stream.codec,
        duration_s=duration_s,
        sample_rate_hz=stream.sample_rate_hz,
        channels=stream.channels,
        flags=tuple(sorted({*flags, *tally.flags()})),
        measures=tally.measures(),
    )


def prepare_worker() -> None:
    """Make a worker process fit for files from strangers: it writes no more to any file than its last words."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_WRITTEN_BYTES, MOST_WRITTEN_BYTES))


def differs(measured_s: float, claimed_s: float) -> bool:
    """Whether two durations in seconds disagree by more than encoders' padding explains."""
    return abs(measured_s - claimed_s) > max(DURATION_SLACK_S, DURATION_TOLERANCE * claimed_s)


def judge_duration(duration_s: float, *, promised_s: float | None, container: str) -> list[str]:
    """Compare how much was decoded with what the header promised, and with what is kept at all.

    Parameters
    ----------
    duration_s : float
        Of the decoded samples.
    promised_s : float or None
        By the header.
    container : str
        For the sentence.

    Returns
    -------
    list of str
        The flag `longer-than-declared`, or nothing.

    Raises
    ------
    AudioRefusedError
        `empty`, `truncated`, `too-short`.
    """
    if duration_s == 0:
        raise AudioRefusedError(AudioReason.EMPTY, f"the {container} file holds no samples; ask the provider for the take again")
    if promised_s is not None and duration_s < promised_s and differs(duration_s, promised_s):
        detail = f"{promised_s:.2f} s are promised and {duration_s:.2f} s decode; fetch it again"
        raise AudioRefusedError(AudioReason.TRUNCATED, detail)
    if duration_s < MIN_DURATION_S:
        raise AudioRefusedError(AudioReason.TOO_SHORT, f"{duration_s:.4f} s of audio; at least {MIN_DURATION_S} s are kept")
    is_longer = promised_s is not None and differs(duration_s, promised_s)
    return ["longer-than-declared"] if is_longer else []


class _Tally:
    """Sums over all blocks of a file; memory does not grow with it."""

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self.frames = 0
        self.peak = 0.0
        self.clipped = 0
        self.sums = np.zeros(channels)
        self.products = np.zeros((channels, channels))

    def add(self, block: np.ndarray) -> None:
        """Add samples, float32 of shape (n, channels).

        Raises
        ------
        AudioRefusedError
            `non-finite-samples`.
        """
        peak = check_samples(block, at_frame=self.frames)
        self.frames += len(block)
        self.peak = max(self.peak, peak)
        self.sums += [column.sum(dtype=np.float64) for column in block.T]  # nine times as fast as over the rows
        self.products += block.T @ block
        if peak >= CLIPPED_LEVEL:
            # Flat tops, not high ones: a float file may pass full scale without a sample being lost.
            is_flat = (np.abs(block[1:]) >= CLIPPED_LEVEL) & (np.abs(np.diff(block, axis=0)) < 1e-4)
            self.clipped += int(np.count_nonzero(is_flat))

    def measures(self) -> dict[str, float | None]:
        """Levels of the whole file, JSON-ready."""
        energies = np.diag(self.products) / max(1, self.frames)
        correlation, ratio = None, None
        if self.channels == 2 and energies.max() > 0:
            ratio = float(energies.min() / energies.max())
            if ratio > 0:
                correlation = float(self.products[0, 1] / np.sqrt(self.products[0, 0] * self.products[1, 1]))
        return {
            "peak": self.peak,
            "rms": float(np.sqrt(energies.mean())),
            "dc_offset": float(np.abs(self.sums).max() / max(1, self.frames)),
            "clipped_share": self.clipped / max(1, self.frames * self.channels),
            "stereo_correlation": correlation,
            "side_energy_ratio": ratio,
        }

    def flags(self) -> list[str]:
        """Names of the oddities."""
        measured = {name: value if value is not None else np.nan for name, value in self.measures().items()}
        is_silent = measured["peak"] < SILENT_PEAK
        is_one_sided = not is_silent and measured["side_energy_ratio"] < ONE_SIDED_RATIO
        found = {
            "silent": is_silent,
            "near-silent": not is_silent and measured["rms"] < NEAR_SILENT_RMS,
            "dc-offset": measured["dc_offset"] > DC_OFFSET,
            "clipping": measured["clipped_share"] > CLIPPED_SHARE,
            "over-full-scale": measured["peak"] > 1.0,
            "antiphase": not is_silent and not is_one_sided and measured["stereo_correlation"] < ANTIPHASE_CORRELATION,
            "one-sided": is_one_sided,
            "multichannel": self.channels > 2,
        }
        return [name for name, is_so in found.items() if is_so]
