"""Tempo: probabilities over the grid, its course, and the fit through beats."""

import numpy as np
import pytest

from keeptake.audio import tempo
from keeptake.audio.frontend import SAMPLE_RATE_HZ, SHORT_HOP
from keeptake.audio.tempo import TEMPI_BPM, believe_tempo, detrended, fit_tempo, nearest_octave, tempo_candidates, tempo_course

FRAME_RATE_HZ = SAMPLE_RATE_HZ / SHORT_HOP


def pulses(beats_s: np.ndarray, duration_s: float, *, noise: float = 0.02, seed: int = 0) -> np.ndarray:
    """An onset envelope with a narrow peak at each beat, on a little noise."""
    t = np.arange(round(duration_s * FRAME_RATE_HZ)) / FRAME_RATE_HZ
    peaks = np.exp(-0.5 * ((t[:, None] - beats_s) / 0.012) ** 2).sum(axis=1)
    return detrended(peaks + noise * np.random.default_rng(seed).random(t.size), FRAME_RATE_HZ)


@pytest.mark.parametrize("tempo_bpm", np.round(np.geomspace(80, 150, 9), 2).tolist())
def test_likeliest_tempo_is_the_pulse(tempo_bpm):
    envelope = pulses(np.arange(0, 20, 60 / tempo_bpm), 20)
    belief = believe_tempo(envelope, frame_rate_hz=FRAME_RATE_HZ, onset_rate_hz=tempo_bpm / 60)
    assert belief.probability.sum() == pytest.approx(1)
    bpm, weight = tempo_candidates(belief.probability)[0]
    assert bpm == pytest.approx(tempo_bpm, rel=0.005)
    assert weight > 0.5
    assert belief.clarity_at(bpm) > 0.7


def test_noise_has_no_clarity():
    for seed in range(10):
        envelope = pulses(np.array([-1.0]), 8, noise=1.0, seed=seed)
        belief = believe_tempo(envelope, frame_rate_hz=FRAME_RATE_HZ, onset_rate_hz=5)
        assert belief.clarity_at(tempo_candidates(belief.probability)[0][0]) < 0.1


def test_candidates_name_half_double_and_thirds_and_share_one_probability():
    probability = np.exp(-0.5 * (np.log2(TEMPI_BPM / 100) / 0.01) ** 2)
    probability /= probability.sum()
    candidates = tempo_candidates(probability)
    tempi = [bpm for bpm, _ in candidates]
    assert tempi[0] == pytest.approx(100, rel=0.003)
    assert candidates[0][1] == pytest.approx(1, abs=1e-3)
    for ratio in (0.5, 2, 1.5, 2 / 3):
        assert min(abs(bpm / (100 * ratio) - 1) for bpm in tempi) < 0.005
    assert sum(weight for _, weight in candidates) <= 1 + 1e-9


@pytest.mark.parametrize("tempo_bpm", [62.4, 97, 118.3, 147.6, 199])
def test_fit_is_exact_through_rounded_beats(tempo_bpm):
    beats_s = np.round(np.arange(0, 30, 60 / tempo_bpm) * FRAME_RATE_HZ) / FRAME_RATE_HZ
    fitted_bpm, stability = fit_tempo(beats_s)
    assert fitted_bpm == pytest.approx(tempo_bpm, rel=1e-3)
    assert stability > 0.8


def test_fit_survives_a_slip_of_the_tracker():
    beats_s = np.arange(40) * 0.5
    beats_s[12:] += 0.1
    fitted_bpm, _ = fit_tempo(beats_s)
    assert fitted_bpm == pytest.approx(120, rel=0.01)


def test_wavering_beats_are_less_stable_than_steady_ones():
    steady = np.arange(40) * 0.5
    wavering = steady + np.random.default_rng(0).normal(0, 0.02, 40)
    assert fit_tempo(steady)[1] > 0.99
    assert fit_tempo(wavering)[1] < 0.7
    assert fit_tempo(steady[:5]) is None


def changing(first_bpm: float, last_bpm: float, duration_s: float, *, change_at: float | None) -> np.ndarray:
    """Beats that change their tempo at a share of the clip, or all along it where that is None."""
    times, now = [], 0.0
    while now < duration_s:
        times.append(now)
        share = now / duration_s
        now += 60 / (first_bpm + (last_bpm - first_bpm) * (share if change_at is None else float(share >= change_at)))
    return np.array(times)


@pytest.mark.parametrize(
    ("first_bpm", "last_bpm", "change_at"),
    [
        *((100, 127, 0.5), (140, 110, 0.5), (120, 132, 0.5), (100, 127, 0.3), (100, 127, 0.7), (100, 110, 0.7)),
        *((100, 127, None), (140, 110, None), (90, 117, None)),
    ],
)
def test_change_is_flagged(first_bpm, last_bpm, change_at):
    course = tempo_course(pulses(changing(first_bpm, last_bpm, 30, change_at=change_at), 30), frame_rate_hz=FRAME_RATE_HZ)
    assert course.is_change
    ends = nearest_octave(course.tempi_bpm, (first_bpm + last_bpm) / 2)
    assert ends[0] == pytest.approx(first_bpm, rel=0.05)
    assert ends[-1] == pytest.approx(last_bpm, rel=0.05)


def test_tempo_of_a_change_is_the_commonest_not_a_mean():
    beats_s = np.concatenate([np.arange(24) * 0.6, 14.4 + np.arange(30) * 60 / 127])
    assert fit_tempo(beats_s, is_steady=False)[0] == pytest.approx(127, rel=1e-3)
    assert fit_tempo(beats_s[:40], is_steady=False)[0] == pytest.approx(100, rel=1e-3)


@pytest.mark.parametrize("tempo_bpm", [60, 85, 110, 140, 174])
def test_steady_pulse_is_no_change_even_where_every_other_beat_fades(tempo_bpm):
    """A window that prefers half the tempo once looked like a change."""
    beats_s = np.arange(0, 30, 60 / tempo_bpm)
    sparse = np.concatenate([beats_s[beats_s < 15], beats_s[beats_s >= 15][::2]])
    for beats in (beats_s, sparse):
        assert not tempo_course(pulses(beats, 30), frame_rate_hz=FRAME_RATE_HZ).is_change


def test_short_envelope_has_no_course():
    assert tempo_course(np.ones(round(5 * FRAME_RATE_HZ)), frame_rate_hz=FRAME_RATE_HZ) is None


def test_path_pays_for_jumps():
    support = np.zeros((5, 3))
    support[:, 0] = 0.5
    support[2, 2] = 0.9
    jumps = np.abs(np.subtract.outer(np.arange(3), np.arange(3)))
    assert tempo._best_path(support, 1.0 * jumps).tolist() == [0, 0, 0, 0, 0]
    assert tempo._best_path(support, 0.1 * jumps).tolist() == [0, 0, 2, 0, 0]
