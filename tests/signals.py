"""Audio with known truth, synthesised: mono float32 arrays at the given rate, peak at most 1."""

import numpy as np


def time_s(duration_s: float, sample_rate_hz: int) -> np.ndarray:
    """Sample times in seconds, shape (n,)."""
    return np.arange(round(duration_s * sample_rate_hz)) / sample_rate_hz


def sine(frequency_hz: float, duration_s: float, sample_rate_hz: int, *, amplitude: float = 0.5) -> np.ndarray:
    """A pure tone."""
    return (amplitude * np.sin(2 * np.pi * frequency_hz * time_s(duration_s, sample_rate_hz))).astype(np.float32)


def click_track(tempo_bpm: float, duration_s: float, sample_rate_hz: int, *, first_s: float = 0.1) -> np.ndarray:
    """Short decaying 1 kHz bursts on every beat, the first at `first_s`."""
    out = np.zeros(round(duration_s * sample_rate_hz))
    burst = np.sin(2 * np.pi * 1000 * time_s(0.03, sample_rate_hz)) * np.exp(-np.linspace(0, 8, round(0.03 * sample_rate_hz)))
    for beat_s in np.arange(first_s, duration_s - 0.05, 60 / tempo_bpm):
        at = round(beat_s * sample_rate_hz)
        out[at : at + burst.size] += 0.8 * burst
    return out.astype(np.float32)


def white_noise(duration_s: float, sample_rate_hz: int, *, amplitude: float = 0.3, seed: int = 0) -> np.ndarray:
    """Uniform noise of a seeded generator."""
    return np.random.default_rng(seed).uniform(-amplitude, amplitude, round(duration_s * sample_rate_hz)).astype(np.float32)
