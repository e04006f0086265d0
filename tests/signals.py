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


def drum_beat(
    tempo_bpm: float,
    duration_s: float,
    sample_rate_hz: int,
    *,
    beats_per_bar: int = 4,
    swing: float = 0.0,
    chords_hz: tuple[tuple[float, ...], ...] = ((220.0, 261.6, 329.6), (174.6, 220.0, 261.6)),
    seed: int = 0,
) -> np.ndarray:
    """Kick on one, snare on the other even beats (all others of a bar of three), hats on eighths, a chord a bar; starts at 0.

    `swing` delays every second eighth by that share of an eighth (1/3: triplets).
    """
    rng = np.random.default_rng(seed)
    out = np.zeros(round(duration_s * sample_rate_hz) + sample_rate_hz)
    t = time_s(0.25, sample_rate_hz)
    kick = np.sin(2 * np.pi * (50 * t + 30 * (1 - np.exp(-t * 30)) / 30)) * np.exp(-t * 14)
    snare = (0.6 * rng.standard_normal(t.size) + 0.4 * np.sin(2 * np.pi * 190 * t)) * np.exp(-t * 22)
    hat = np.diff(rng.standard_normal(t.size + 1)) * np.exp(-t * 90)
    beat_s = 60 / tempo_bpm
    for beat in range(int(np.ceil(duration_s / beat_s))):
        place = beat % beats_per_bar
        events = [(0.0, 0.8 * kick if place == 0 else 0.35 * snare if place % 2 or beats_per_bar == 3 else 0.6 * kick)]
        events += [(0.0, 0.12 * hat), (0.5 * (1 + swing), 0.09 * hat)]
        if place == 0:
            bar_s = time_s(beat_s * beats_per_bar, sample_rate_hz)
            pitches = chords_hz[beat // beats_per_bar % len(chords_hz)]
            fade = np.exp(-bar_s / 1.5)
            events.append((0.0, 0.1 * fade * sum(np.sin(2 * np.pi * hz * bar_s) for hz in pitches)))
        for offset, sound in events:
            at = round((beat + offset) * beat_s * sample_rate_hz)
            kept = sound[: max(0, out.size - at)]
            out[at : at + kept.size] += kept
    out = out[: round(duration_s * sample_rate_hz)]
    return (0.7 * out / np.abs(out).max()).astype(np.float32)


TRIADS = {  # semitones above the tonic of the chords I IV V I, and of i iv V i with the minor's raised leading tone
    "major": ((0, 4, 7), (5, 9, 12), (7, 11, 14), (0, 4, 7)),
    "minor": ((0, 3, 7), (5, 8, 12), (7, 11, 14), (0, 3, 7)),
}


def cadence(
    tonic: int, mode: str, duration_s: float, sample_rate_hz: int, *, tuning_cents: float = 0.0, chord_s: float = 1.0
) -> np.ndarray:
    """Full cadences in a key: decaying chords of five harmonics, the root an octave below; `tonic` counts semitones from C4."""
    t = time_s(chord_s, sample_rate_hz)
    out = np.zeros(round(duration_s * sample_rate_hz) + t.size)
    for number in range(int(np.ceil(duration_s / chord_s))):
        chord = TRIADS[mode][number % 4]
        sound = np.zeros(t.size)
        for semitones in (chord[0] - 12, *chord):
            hz = 440 * 2 ** ((tonic + semitones - 9 + tuning_cents / 100) / 12)
            sound += sum(np.sin(2 * np.pi * hz * k * t) / k**1.5 for k in range(1, 6))
        at = round(number * chord_s * sample_rate_hz)
        out[at : at + t.size] += sound * np.exp(-t / 0.6) * np.minimum(1, t / 0.005)
    out = out[: round(duration_s * sample_rate_hz)]
    return (0.6 * out / np.abs(out).max()).astype(np.float32)


def song(
    tempo_bpm: float, sections: str, bars_each: int, sample_rate_hz: int, *, beats_per_bar: int = 4, seed: int = 0
) -> np.ndarray:
    """Sections of equal length, a letter each: A is a drum beat, B chords without drums, C a bright arpeggio over both."""
    rng = np.random.default_rng(seed)
    length_s = bars_each * beats_per_bar * 60 / tempo_bpm
    drums = drum_beat(tempo_bpm, length_s, sample_rate_hz, beats_per_bar=beats_per_bar, seed=seed)
    t = time_s(length_s, sample_rate_hz)
    beat = (t * tempo_bpm / 60) % 1
    chords = 0.2 * np.exp(-2 * beat) * sum(np.sin(2 * np.pi * hz * t) for hz in (220.0, 277.2, 329.6))
    steps = np.array([880.0, 1108.7, 1318.5, 1760.0])[(t * tempo_bpm / 15).astype(int) % 4]
    arpeggio = 0.2 * np.sign(np.sin(2 * np.pi * np.cumsum(steps) / sample_rate_hz)) * np.exp(-4 * ((t * tempo_bpm / 15) % 1))
    parts = {"A": drums, "B": chords, "C": 0.6 * drums + 0.5 * chords + arpeggio}
    out = np.concatenate([parts[letter] for letter in sections])
    return (0.7 * out / np.abs(out).max() + 1e-4 * rng.standard_normal(out.size)).astype(np.float32)
