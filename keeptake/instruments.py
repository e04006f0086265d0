"""What does one note sound like? Drum hits, bass, chords and a voice, synthesised from nothing.

Conventions: mono float64 arrays at `SAMPLE_RATE_HZ`, peak about 1; pitches are MIDI numbers (60 is middle C); every noise comes
from the generator that is handed in, so that the same seed gives the same samples.

Belongs here: the sound of a single hit or note. Does not: which notes are played when (`beatmaker.py`).
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, lfilter, sosfilt

SAMPLE_RATE_HZ = 44_100
_TABLE = 2048

Samples = NDArray[np.float64]

# Formants of sung vowels: (frequency in Hz, gain) of the first four, after Sundberg, "The Science of the Singing Voice" (1987).
VOWELS = {
    "a": ((700, 1.0), (1150, 0.6), (2600, 0.28), (3300, 0.2)),
    "e": ((450, 1.0), (1900, 0.4), (2500, 0.3), (3400, 0.2)),
    "i": ((300, 1.0), (2200, 0.35), (2900, 0.3), (3500, 0.2)),
    "o": ((450, 1.0), (800, 0.6), (2600, 0.2), (3300, 0.15)),
    "u": ((330, 1.0), (700, 0.4), (2500, 0.15), (3300, 0.12)),
}


def frequency_hz(pitch: float) -> float:
    """Frequency of a MIDI pitch in equal temperament, A4 = 440 Hz."""
    return float(440.0 * 2 ** ((pitch - 69) / 12))


def seconds(duration_s: float) -> Samples:
    """Sample times from 0, shape (n,)."""
    return np.arange(round(duration_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ


def kick() -> Samples:
    """A sine that falls from 160 to 48 Hz."""
    t = seconds(0.32)
    phase = 48 * t + (160 - 48) / 30 * (1 - np.exp(-30 * t))
    return np.sin(2 * np.pi * phase) * np.exp(-9 * t)


def snare(rng: np.random.Generator) -> Samples:
    """Band-passed noise over a short 185 Hz tone."""
    t = seconds(0.22)
    noise = _band(rng.standard_normal(t.size), 900, 9000) * np.exp(-18 * t)
    return 0.7 * noise + 0.5 * np.sin(2 * np.pi * 185 * t) * np.exp(-26 * t)


def clap(rng: np.random.Generator) -> Samples:
    """Four bursts of noise within 30 ms, then a tail."""
    t = seconds(0.22)
    bursts = sum(np.where(t >= start, np.exp(-180 * np.maximum(t - start, 0)), 0) for start in (0, 0.01, 0.02))
    return np.asarray(_band(rng.standard_normal(t.size), 1100, 6000) * (bursts + np.exp(-22 * t)) * 0.5)


def hat(rng: np.random.Generator, duration_s: float) -> Samples:
    """Noise above 7 kHz that dies away within `duration_s`."""
    t = seconds(duration_s)
    return _band(rng.standard_normal(t.size), 7000, 15_000) * np.exp(-5 / duration_s * t) * 0.8


def sub_bass(pitch: float, duration_s: float) -> Samples:
    """A decaying, slightly driven sine with an audible octave."""
    t = seconds(duration_s)
    phase = 2 * np.pi * frequency_hz(pitch) * t
    return np.tanh(1.6 * np.sin(phase) + 0.35 * np.sin(2 * phase)) * _fade(t.size, 0.004, 0.03) * np.exp(-1.2 * t)


def reese_bass(pitch: float, duration_s: float) -> Samples:
    """Two detuned saws, low-passed."""
    raw = 0.5 * (_saw(pitch - 0.07, duration_s) + _saw(pitch + 0.07, duration_s))
    return _low(raw, 700) * _fade(raw.size, 0.005, 0.03) * 1.2


def pad(pitch: float, duration_s: float) -> Samples:
    """Detuned saws behind a low-pass, slow to start and to end."""
    raw = (_saw(pitch, duration_s) + _saw(pitch + 0.08, duration_s, phase=0.4)) * 0.5
    return _low(raw, 1800) * _fade(raw.size, 0.08, 0.12)


def electric_piano(pitch: float, duration_s: float) -> Samples:
    """Two-operator FM with a short bell at the start."""
    t = seconds(duration_s)
    phase = 2 * np.pi * frequency_hz(pitch) * t
    bell = 0.25 * np.sin(4 * phase) * np.exp(-14 * t)
    return (np.sin(phase + 0.9 * np.exp(-3 * t) * np.sin(phase)) + bell) * np.exp(-1.8 * t) * _fade(t.size, 0.004, 0.05) * 0.8


def pluck(pitch: float, duration_s: float) -> Samples:
    """A saw that loses its brightness and dies within the note."""
    raw = _saw(pitch, duration_s)
    t = seconds(duration_s)[: raw.size]
    return (_low(raw, 900) + _low(raw, 4000) * np.exp(-16 * t)) * np.exp(-4.5 * t) * _fade(raw.size, 0.003, 0.02) * 0.8


def voice(pitch: float, duration_s: float, vowel: str, rng: np.random.Generator) -> Samples:
    """Sing one vowel: a glottal pulse with vibrato, jitter and a scoop into the note, through four formants.

    Parameters
    ----------
    pitch : float
        MIDI number.
    duration_s : float
        Length of the note (> 0).
    vowel : str
        A key of `VOWELS`.
    rng : np.random.Generator
        Of the breath, the jitter and the phase of the vibrato.
    """
    t = seconds(duration_s)
    vibrato = 0.35 * np.clip((t - 0.12) * 4, 0, 1) * np.sin(2 * np.pi * (5.4 * t + rng.random()))
    drift = np.interp(
        t, np.arange(0, duration_s + 0.1, 0.05), 0.06 * rng.standard_normal(np.arange(0, duration_s + 0.1, 0.05).size)
    )
    bend = pitch - 1.2 * np.exp(-28 * t) + vibrato + drift
    phase = np.cumsum(440.0 * 2 ** ((bend - 69) / 12)) / SAMPLE_RATE_HZ
    table = _saw_table(min(60, int(9000 / frequency_hz(pitch))))
    source = lfilter([1 - 0.9], [1, -0.9], table[(phase * _TABLE).astype(np.int64) % _TABLE]) + 0.015 * rng.standard_normal(
        t.size
    )
    sung = sum(
        (gain * _resonate(source, formant_hz, 90 + 0.04 * formant_hz) for formant_hz, gain in VOWELS[vowel]), np.zeros(t.size)
    )
    sung *= _fade(t.size, 0.035, 0.06)
    return np.asarray(sung / (np.abs(sung).max() + 1e-9))


@cache
def _saw_table(harmonics: int) -> Samples:
    spectrum = np.zeros(_TABLE // 2 + 1, dtype=complex)
    spectrum[1 : harmonics + 1] = -1j * _TABLE / np.pi / np.arange(1, harmonics + 1)
    return np.fft.irfft(spectrum)


def _saw(pitch: float, duration_s: float, *, phase: float = 0.0) -> Samples:
    """Band-limited, from a table with the harmonics below 12 kHz."""
    table = _saw_table(max(1, min(200, int(12_000 / frequency_hz(pitch)))))
    cycles = seconds(duration_s) * frequency_hz(pitch) + phase
    return table[(cycles * _TABLE).astype(np.int64) % _TABLE]


def _resonate(samples: Samples, centre_hz: float, width_hz: float) -> Samples:
    radius = np.exp(-np.pi * width_hz / SAMPLE_RATE_HZ)
    turn = 2 * np.cos(2 * np.pi * centre_hz / SAMPLE_RATE_HZ) * radius
    return np.asarray(lfilter([1 - radius, 0, radius - 1], [1, -turn, radius**2], samples))


@cache
def _sections(kind: str, *edges_hz: float) -> Samples:
    return np.asarray(butter(2, edges_hz if len(edges_hz) > 1 else edges_hz[0], kind, fs=SAMPLE_RATE_HZ, output="sos"))


def _low(samples: Samples, edge_hz: float) -> Samples:
    return np.asarray(sosfilt(_sections("lowpass", edge_hz), samples))


def _band(samples: Samples, low_hz: float, high_hz: float) -> Samples:
    return np.asarray(sosfilt(_sections("bandpass", low_hz, high_hz), samples))


def _fade(size: int, attack_s: float, release_s: float) -> Samples:
    at = np.arange(size) / SAMPLE_RATE_HZ
    return np.minimum(np.minimum(at / attack_s, (at[-1] - at) / release_s if size else at), 1.0)
