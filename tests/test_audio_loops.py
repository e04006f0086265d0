"""Loops: whole bars that play round, their length, and what is no loop."""

import numpy as np
import pytest

from keeptake.audio.frontend import SAMPLE_RATE_HZ, SHORT_HOP, listen
from keeptake.audio.loops import Loop, find_loop

FRAME_RATE_HZ = SAMPLE_RATE_HZ / SHORT_HOP


def loop_of(samples: np.ndarray, tempo_bpm: float, *, is_steady: bool = True) -> Loop:
    heard = listen(samples.astype(np.float32))
    return find_loop(
        heard.mel,
        frame_rate_hz=FRAME_RATE_HZ,
        duration_s=heard.duration_s,
        tempo_bpm=tempo_bpm,
        beats_s=np.arange(0, heard.duration_s, 60 / tempo_bpm),
        beats_in_bar=4,
        is_steady=is_steady,
    )


def bars(count: float, tempo_bpm: float) -> float:
    return count * 4 * 60 / tempo_bpm


@pytest.mark.parametrize("tempo_bpm", [85, 120, 140])
@pytest.mark.parametrize("unit_bars", [1, 2, 4])
def test_repeated_unit_is_found(signals, tempo_bpm, unit_bars):
    chords = tuple((hz, 1.25 * hz, 1.5 * hz) for hz in (220.0, 165.0, 196.0, 147.0)[:unit_bars])
    unit = signals.drum_beat(tempo_bpm, bars(unit_bars, tempo_bpm), SAMPLE_RATE_HZ, chords_hz=chords)
    found = loop_of(np.tile(unit, 8 // unit_bars), tempo_bpm)
    assert (found.is_loop, found.loop_bars) == (True, unit_bars)
    assert found.seam_score > 0.8


@pytest.mark.parametrize("excess_bars", [0.25, 0.5, -0.3])
def test_clip_that_ends_inside_a_bar_is_no_loop(signals, excess_bars):
    samples = signals.drum_beat(120, bars(8 + excess_bars, 120), SAMPLE_RATE_HZ)
    assert not loop_of(samples, 120).is_loop


def test_single_cycle_needs_a_usual_length_and_a_seam_that_fits(signals):
    roots = (220.0, 165.0, 196.0, 147.0, 131.0, 247.0, 185.0, 110.0)
    chords = tuple((hz, 1.26 * hz, 1.5 * hz) for hz in roots)
    cycle = signals.drum_beat(110, bars(8, 110), SAMPLE_RATE_HZ, chords_hz=chords)
    fades = cycle * np.linspace(1, 0, cycle.size) ** 4
    assert loop_of(cycle, 110)[:2] == (True, 8)
    assert not loop_of(fades, 110).is_loop
    assert loop_of(fades, 110).seam_score < 0.6 <= loop_of(cycle, 110).seam_score
    assert not loop_of(cycle[: round(bars(7, 110) * SAMPLE_RATE_HZ)], 110).is_loop


def test_changing_tempo_is_no_loop(signals):
    samples = signals.drum_beat(120, bars(8, 120), SAMPLE_RATE_HZ)
    assert loop_of(samples, 120).is_loop
    assert not loop_of(samples, 120, is_steady=False).is_loop
