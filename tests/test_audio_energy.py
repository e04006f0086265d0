"""Energy of tones, pulses and pauses whose levels are known."""

import numpy as np
import pytest

from keeptake.audio.energy import FRAME, energy

RATE_HZ = 22_050


def test_a_tone_has_its_own_level_and_no_frame_below(signals):
    tone = signals.sine(440, 4.0, RATE_HZ, amplitude=0.5).astype(np.float32)
    assert energy(tone) == {"rms_energy": pytest.approx(0.5 / np.sqrt(2), rel=1e-3), "low_energy_share": 0.0}


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_pauses_are_frames_of_low_energy(signals, share):
    noise = signals.white_noise(8.0, RATE_HZ, amplitude=0.2).astype(np.float32)
    frames = noise[: noise.size // FRAME * FRAME].reshape(-1, FRAME)
    pauses = round(share * len(frames))
    rms = float(np.sqrt((frames[pauses:] ** 2).mean(axis=1)).sum() / len(frames))
    frames[:pauses] = 0
    heard = energy(frames.ravel())
    assert heard["rms_energy"] == pytest.approx(rms, rel=1e-5)
    assert heard["low_energy_share"] == pytest.approx(share, abs=0.5 / len(frames))


def test_few_attacks_are_nearly_all_low(signals):
    clicks, noise = (signals.click_track(60, 8.0, RATE_HZ), signals.white_noise(8.0, RATE_HZ))
    shares = [energy(samples.astype(np.float32))["low_energy_share"] for samples in (clicks, noise)]
    assert shares[0] > 0.9 and 0.2 < shares[1] < 0.5


def test_gain_moves_the_level_alone(signals):
    drums = signals.drum_beat(110, 8.0, RATE_HZ).astype(np.float32)
    loud, soft = energy(drums), energy(0.25 * drums)
    assert soft["rms_energy"] == pytest.approx(0.25 * loud["rms_energy"], rel=1e-5)
    assert soft["low_energy_share"] == loud["low_energy_share"]


def test_silence_is_zero_and_less_than_a_frame_is_nothing():
    assert energy(np.zeros(RATE_HZ, np.float32)) == {"rms_energy": 0.0, "low_energy_share": 0.0}
    assert energy(np.zeros(FRAME - 1, np.float32)) == {"rms_energy": None, "low_energy_share": None}
