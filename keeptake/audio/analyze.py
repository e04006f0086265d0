"""Everything that is heard in one take: calls the parts and does nothing else.

Conventions: an analysis depends on the samples and the version of each part only. A part that cannot be heard says null with a
reason (`REASONS`); its values are then empty. Values are plain JSON: numbers, strings, booleans, lists. `cpu_s` is the part's own
time; decoding and the transforms that parts share are in nobody's.

Belongs here: which part needs what, and the columns that programs read. Does not: any measurement, any path or model file
(networks come in as callables, see `keeptake/hearing.py`).
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol, TypeVar

import numpy as np

from keeptake.audio.copies import copies
from keeptake.audio.danceability import danceability
from keeptake.audio.defects import DefectMeter
from keeptake.audio.energy import energy
from keeptake.audio.frontend import (
    LONG_HOP,
    NETWORK_RATE_HZ,
    SHORT_HOP,
    Frontend,
    MonoTake,
    even_blocks,
    for_networks,
    listen,
    mono_mix,
)
from keeptake.audio.frontend import SAMPLE_RATE_HZ as HEARD_RATE_HZ
from keeptake.audio.hum import mains_hum
from keeptake.audio.loudness import SHORTEST_S as SHORTEST_LOUDNESS_S
from keeptake.audio.loudness import LoudnessMeter
from keeptake.audio.pitch import voiced_range
from keeptake.audio.rhythm import rhythm
from keeptake.audio.spectrum import BandwidthMeter, timbre
from keeptake.audio.structure import structure
from keeptake.audio.style import mean_tags, style
from keeptake.audio.tonal import SHORTEST_S as SHORTEST_TONAL_S
from keeptake.audio.tonal import tonality
from keeptake.audio.vocals import vocals
from keeptake.errors import AudioReason, AudioRefusedError, ConfigurationError

# Raised when a part's values change: only that part is then stale, and done again.
PART_VERSIONS: dict[str, str] = {
    "rhythm": "4",
    "tonal": "4",
    "spectrum": "3",
    "loudness": "2",
    "defects": "3",
    "vocals": "3",
    "style": "2",
    "structure": "3",
}
REASONS = ("too-short", "silent", "non-finite-samples", "atonal", "single-pitch", "nothing-periodic", "no-networks")

SHORTEST_S = 0.05
SHORTEST_NETWORK_S = 1.0  # below, a three-second patch is mostly repetition
FRAME_RATE_HZ = HEARD_RATE_HZ / SHORT_HOP
CHROMA_RATE_HZ = HEARD_RATE_HZ / LONG_HOP

# Where the columns of the ledger's table `features` come from.
FEATURE_COLUMNS: dict[str, tuple[str, ...]] = {
    "rhythm": (
        *("tempo_bpm", "tempo_confidence", "rhythm_confidence", "tempo_stability", "beats_per_bar", "onset_rate_hz"),
        "has_tempo_change",
    ),
    "tonal": ("key", "key_confidence", "tuning_cents"),
    "spectrum": (
        *("spectral_centroid_hz", "spectral_rolloff_hz", "spectral_bandwidth_hz", "spectral_flatness", "zero_crossing_rate"),
        "bandwidth_limit_hz",
    ),
    "loudness": ("loudness_lufs", "loudness_range_lu", "true_peak_dbtp", "crest_factor_db", "dynamic_range"),
    "defects": (
        *("duration_s", "no_clipping", "clipping_share", "silence_share", "dc_offset", "stereo_correlation", "has_clipping"),
        *("is_silent", "has_dc_offset", "is_antiphase", "is_one_sided", "has_abrupt_start", "has_abrupt_end"),
    ),
    "vocals": ("vocals_probability", "has_vocals", "vocal_share"),
    "style": ("genre", "mood"),
    "structure": ("is_loop", "loop_bars", "seam_score"),
}

Values = dict[str, Any]
Answer = tuple[Values | None, str | None]  # values, or the reason why there are none
Given = TypeVar("Given")
Made = TypeVar("Made")


class Tags(Protocol):
    """What a tagger says about one audio."""

    @property
    def tags_probability(self) -> np.ndarray:
        """Shape (patches, tags), in [0, 1]."""

    @property
    def starts_s(self) -> np.ndarray:
        """Shape (patches,)."""


class Tagger(Protocol):
    """A music tagger: mono audio at 16 kHz in, tags over time out."""

    @property
    def tags(self) -> Sequence[str]:
        """Names of the tags, in order."""

    def __call__(self, mono_16k: Iterable[np.ndarray], /) -> Sequence[Tags]:
        """Hear audio."""


class SpeechTrack(Protocol):
    """Speech over time."""

    @property
    def probability(self) -> np.ndarray:
        """Shape (frames,), in [0, 1]."""

    @property
    def starts_s(self) -> np.ndarray:
        """Shape (frames,)."""


@dataclass(frozen=True)
class Networks:
    """The networks that an analysis may ask, ready to call.

    Attributes
    ----------
    musicnn : Tagger
        Trained on MagnaTagATune: vocals and instruments.
    speech : callable
        Speech probability of mono audio at 16 kHz.
    style : Tagger, optional
        Trained on the Million Song Dataset: genres and moods. Without it the part `style` is null.
    """

    musicnn: Tagger
    speech: Callable[[np.ndarray], SpeechTrack]
    style: Tagger | None = None


@dataclass(frozen=True)
class Part:
    """One part of an analysis.

    Attributes
    ----------
    version : str
        Of the code that made it.
    status : {"ok", "null"}
    reason : str or None
        Of `REASONS`, where the status is null.
    values : dict
        Plain JSON; empty where the status is null.
    cpu_s : float
        CPU seconds of the part itself.
    """

    version: str
    status: Literal["ok", "null"]
    reason: str | None
    values: Values
    cpu_s: float


def analyze(
    blocks: Iterable[np.ndarray],
    sample_rate_hz: int,
    *,
    parts: Collection[str] | None = None,
    networks: Networks | None = None,
) -> dict[str, Part]:
    """Hear a take.

    Parameters
    ----------
    blocks : iterable of np.ndarray [shape=(n,) or (n, channels), float32]
        The samples in order, in blocks of any length, full scale at 1; read once.
    sample_rate_hz : int, > 0
    parts : collection of str, optional
        Names of `PART_VERSIONS`; all where None. What another part needs is computed, and left out of the answer.
    networks : Networks, optional
        Without them `vocals` and `style` are null.

    Returns
    -------
    dict of Part
        One for each part asked for.

    Raises
    ------
    ConfigurationError
        For an unknown part or a rate that is none.
    InvalidAudioError
        If the blocks do not fit together.
    AudioRefusedError
        Whatever the blocks raise while they are decoded.
    """
    wanted = frozenset(PART_VERSIONS if parts is None else parts)
    if unknown := wanted - PART_VERSIONS.keys():
        raise ConfigurationError(f"unknown parts {sorted(unknown)}; there are {sorted(PART_VERSIONS)}")
    if sample_rate_hz <= 0:
        raise ConfigurationError(f"the sample rate must be positive, got {sample_rate_hz}")
    spent = _Spent()
    try:
        take = _take_in(blocks, sample_rate_hz, wanted, networks, spent)
    except AudioRefusedError as refusal:
        if refusal.reason != AudioReason.NON_FINITE_SAMPLES:  # a decoder that gave up: the file's fault, not a finding
            raise
        answers: dict[str, Answer] = dict.fromkeys(sorted(wanted), (None, str(refusal.reason)))
    else:
        answers = {name: spent.on(name, hear, take) for name, hear in _PARTS.items() if name in wanted}
    return {
        name: Part(PART_VERSIONS[name], "null" if values is None else "ok", reason, values or {}, spent.cpu_s[name])
        for name, (values, reason) in answers.items()
    }


def features(parts: Mapping[str, Part]) -> dict[str, Any]:
    """Flatten an analysis to the columns of the ledger's table `features`.

    Parameters
    ----------
    parts : mapping of Part
        Any of them; the columns of a missing or null part are None.

    Returns
    -------
    dict
        One value for each column of `FEATURE_COLUMNS`.
    """
    return {
        column: parts[part].values.get(column) if part in parts else None
        for part, columns in FEATURE_COLUMNS.items()
        for column in columns
    }


class _Spent:
    """CPU seconds of each part."""

    def __init__(self) -> None:
        self.cpu_s = dict.fromkeys(PART_VERSIONS, 0.0)

    def on(self, part: str, work: Callable[[Given], Made], given: Given) -> Made:
        """Do some work on a part's account."""
        started_s = time.process_time()
        made = work(given)
        self.cpu_s[part] += time.process_time() - started_s
        return made


@dataclass
class _Take:
    """What one pass over the samples left behind; what several parts need is made once, by the first that asks."""

    duration_s: float
    networks: Networks | None
    loudness: LoudnessMeter | None
    defects: DefectMeter | None
    bandwidth: BandwidthMeter | None
    heard: Frontend | None

    @cached_property
    def mono_16k(self) -> np.ndarray:
        return for_networks(self.frontend.mono)

    @cached_property
    def musicnn_tags(self) -> Tags | None:
        return None if self.networks is None else self.networks.musicnn([self.mono_16k])[0]

    @cached_property
    def tonality(self) -> tuple[Values | None, str | None, np.ndarray]:
        return tonality(self.frontend.long, duration_s=self.frontend.duration_s)

    @cached_property
    def rhythm(self) -> Answer:
        rates_hz = {"frame_rate_hz": FRAME_RATE_HZ, "chroma_rate_hz": CHROMA_RATE_HZ}
        return rhythm(self.frontend.mel, self.tonality[2], **rates_hz, duration_s=self.duration_s)

    @property
    def frontend(self) -> Frontend:
        if self.heard is None:
            raise ConfigurationError("no part was asked for that needs the mono mix")
        return self.heard

    def null_reason(self, shortest_s: float) -> str | None:
        """Why nothing musical can be heard in it, if so."""
        if self.duration_s < shortest_s:
            return "too-short"
        return "silent" if self.heard is None or self.heard.is_silent else None


def _take_in(
    blocks: Iterable[np.ndarray], sample_rate_hz: int, wanted: frozenset[str], networks: Networks | None, spent: _Spent
) -> _Take:
    """Run the meters and the mix over the samples, then the transforms over the mix."""
    samples = 0
    loudness = defects = None
    bandwidth = BandwidthMeter(sample_rate_hz) if "spectrum" in wanted else None
    mono = MonoTake(sample_rate_hz) if wanted - {"loudness", "defects"} else None
    for block in even_blocks(blocks, sample_rate_hz):
        if samples == 0:
            loudness = LoudnessMeter(sample_rate_hz, block.shape[1]) if "loudness" in wanted else None
            defects = DefectMeter(sample_rate_hz, block.shape[1]) if "defects" in wanted else None
        samples += len(block)
        if loudness is not None:
            spent.on("loudness", loudness.add, block)
        if defects is not None:
            spent.on("defects", defects.add, block)
        if mono is not None:
            mix = mono_mix(block)
            mono.add(mix)
            if bandwidth is not None:
                spent.on("spectrum", bandwidth.add, mix)
    heard = None if mono is None else listen(mono.samples())
    return _Take(samples / sample_rate_hz, networks, loudness, defects, bandwidth, heard)


def _hear_tonal(take: _Take) -> Answer:
    if reason := take.null_reason(SHORTEST_TONAL_S):
        return None, reason
    values, reason, _ = take.tonality
    return values, reason


def _hear_spectrum(take: _Take) -> Answer:
    if reason := take.null_reason(SHORTEST_S):
        return None, reason
    limit_hz = None if take.bandwidth is None else take.bandwidth.limit_hz()
    limited = {"bandwidth_limit_hz": limit_hz}
    return timbre(take.frontend) | energy(take.frontend.mono) | limited | mains_hum(take.frontend.long), None


def _hear_loudness(take: _Take) -> Answer:
    if take.loudness is None or take.duration_s < SHORTEST_LOUDNESS_S:
        return None, "too-short"
    values = take.loudness.values()
    return (None, "silent") if values["loudness_lufs"] is None else (values, None)


def _hear_defects(take: _Take) -> Answer:
    if take.defects is None:
        return None, "too-short"
    return {"duration_s": take.duration_s} | take.defects.values(), None


def _hear_rhythm(take: _Take) -> Answer:
    if reason := take.null_reason(SHORTEST_S):
        return None, reason
    values, reason = take.rhythm
    if values is None:
        return None, reason
    return values | {"danceability": danceability(take.frontend.mono, sample_rate_hz=HEARD_RATE_HZ)}, None


def _hear_vocals(take: _Take) -> Answer:
    if reason := take.null_reason(SHORTEST_NETWORK_S):
        return None, reason
    if take.networks is None or take.musicnn_tags is None:
        return None, "no-networks"
    speech = take.networks.speech(take.mono_16k)
    values = vocals(
        take.musicnn_tags.tags_probability,
        tags=take.networks.musicnn.tags,
        patch_starts_s=take.musicnn_tags.starts_s,
        speech_probability=speech.probability,
        speech_starts_s=speech.starts_s,
        duration_s=take.duration_s,
    )
    return values | voiced_range(take.mono_16k, values["vocal_segments_s"], sample_rate_hz=NETWORK_RATE_HZ), None


def _hear_style(take: _Take) -> Answer:
    if reason := take.null_reason(SHORTEST_NETWORK_S):
        return None, reason
    if take.networks is None or take.networks.style is None or take.musicnn_tags is None:
        return None, "no-networks"
    tags = take.networks.style([take.mono_16k])[0]
    instruments = mean_tags(take.musicnn_tags.tags_probability, take.networks.musicnn.tags)
    return style(mean_tags(tags.tags_probability, take.networks.style.tags), instrument_tags=instruments), None


def _hear_structure(take: _Take) -> Answer:
    if reason := take.null_reason(SHORTEST_S):
        return None, reason
    rhythm_values, _ = take.rhythm
    values, reason = structure(take.frontend.mel, frame_rate_hz=FRAME_RATE_HZ, duration_s=take.duration_s, rhythm=rhythm_values)
    if values is None:
        return None, reason
    return values | copies(take.frontend.mono, sample_rate_hz=HEARD_RATE_HZ), None


_PARTS: dict[str, Callable[[_Take], Answer]] = {
    "rhythm": _hear_rhythm,
    "tonal": _hear_tonal,
    "spectrum": _hear_spectrum,
    "loudness": _hear_loudness,
    "defects": _hear_defects,
    "structure": _hear_structure,  # takes the most memory: heard while there is no mix for the networks yet
    "vocals": _hear_vocals,
    "style": _hear_style,
}
