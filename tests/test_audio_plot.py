"""The picture: drawn for any take, and different where the take differs."""

import io

import matplotlib
import numpy as np
import pytest

from keeptake.audio.analyze import analyze
from keeptake.audio.frontend import SAMPLE_RATE_HZ, listen
from keeptake.audio.plot import picture


def drawn(mono):
    parts = analyze([mono], SAMPLE_RATE_HZ)
    return picture(listen(mono), parts, title="take.wav")


def pixels(png):
    from matplotlib.image import imread

    return imread(io.BytesIO(png), format="png")


def test_a_take_is_drawn_and_its_beats_and_sections_are_in_it(signals):
    mono = signals.drum_beat(110, 10.0, SAMPLE_RATE_HZ)
    with_parts, without = pixels(drawn(mono)), pixels(picture(listen(mono), {}, title="take.wav"))
    assert with_parts.shape == without.shape
    assert with_parts.shape[1] > 1500
    assert np.abs(with_parts - without).max() > 0.5


@pytest.mark.parametrize("samples", [0, 1, 2205, 3 * SAMPLE_RATE_HZ], ids=["none", "one", "0.1 s", "3 s"])
def test_silence_and_almost_nothing_are_drawn(samples):
    assert drawn(np.zeros(samples, np.float32)).startswith(b"\x89PNG")


def test_no_global_state_is_touched(signals):
    """With pyplot, every figure stays in memory until it is closed by name."""
    before = matplotlib.get_backend(auto_select=False)
    drawn(signals.cadence(0, "major", 3.0, SAMPLE_RATE_HZ))
    assert matplotlib.get_backend(auto_select=False) == before
