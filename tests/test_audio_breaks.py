"""Planted clicks and gaps are counted; attacks, edges of waves and pauses are not."""

import numpy as np
import pytest
from scipy.signal import sawtooth, square

from keeptake.audio import breaks
from keeptake.audio.breaks import BreakMeter
from keeptake.audio.frontend import even_blocks

RATE_HZ = 44_100
SECONDS = 12.0


def counted(samples, *, rate_hz=RATE_HZ, sizes=None):
    samples = samples[:, None] if samples.ndim == 1 else samples
    meter = BreakMeter(rate_hz, samples.shape[1])
    for block in even_blocks([samples] if sizes is None else np.array_split(samples, sizes), rate_hz):
        meter.add(block)
    meter.close()
    return meter.clicks, meter.dropouts


def plucks(seed=1):
    """Karplus-Strong strings, a note each half second: noise bursts that turn into tones."""
    rng, out = np.random.default_rng(seed), []
    for hz in (110.0, 82.4, 220.0, 440.0) * 6:
        ring, note = rng.uniform(-0.5, 0.5, round(RATE_HZ / hz)), []
        for _ in range(round(hz / 2) + 1):
            note.append(ring)
            ring = 0.499 * (ring + np.roll(ring, 1))
        out.append(np.concatenate(note)[: RATE_HZ // 2])
    return np.concatenate(out)


def clean(signals):
    t = signals.time_s(SECONDS, RATE_HZ)
    waves = {f"square {hz}": 0.5 * square(2 * np.pi * hz * t) for hz in (30, 50, 110, 440)}
    waves |= {f"sawtooth {hz}": 0.5 * sawtooth(2 * np.pi * hz * t) for hz in (30, 41, 110)}
    waves |= {f"pulse {hz}": 0.5 * square(2 * np.pi * hz * t, duty=0.1) for hz in (40, 110)}
    drums = {
        f"drums {seed}": signals.drum_beat(73 + 23 * seed, SECONDS, RATE_HZ, chords_hz=((),), seed=seed) for seed in range(4)
    }
    return waves | drums | {
        "beat": signals.drum_beat(100, SECONDS, RATE_HZ),
        "cadence": signals.cadence(0, "major", SECONDS, RATE_HZ),
        "noise": signals.white_noise(SECONDS, RATE_HZ),
        "metronome": signals.click_track(120, SECONDS, RATE_HZ),
        "plucks": plucks(),
        "sine": signals.sine(50, SECONDS, RATE_HZ),
        "clipped": np.clip(6 * signals.drum_beat(90, SECONDS, RATE_HZ), -1, 1),
        "silence": np.zeros(t.size),
        "pauses": signals.cadence(0, "major", SECONDS, RATE_HZ) * (np.abs(t % 1 - 0.5) < 0.4),
    }  # fmt: skip


CLEAN = (
    *(
        "square 30",
        "square 50",
        "square 110",
        "square 440",
        "sawtooth 30",
        "sawtooth 41",
        "sawtooth 110",
        "pulse 40",
        "pulse 110",
    ),
    *(
        "drums 0",
        "drums 1",
        "drums 2",
        "drums 3",
        "beat",
        "cadence",
        "noise",
        "metronome",
        "plucks",
        "sine",
        "clipped",
        "silence",
    ),
)


@pytest.fixture(scope="module")
def sounds(signals):
    return clean(signals)


def places(number, seed=5):
    """Random frames, half a second apart on average and never closer than 0.2 s."""
    rng = np.random.default_rng(seed)
    slots = np.sort(rng.choice(np.arange(RATE_HZ // 2, round((SECONDS - 1) * RATE_HZ), RATE_HZ // 2), number, replace=False))
    return slots + rng.integers(0, round(0.3 * RATE_HZ), number)


def with_clicks(samples, level_db, number=20):
    rng, out = np.random.default_rng(9), samples.astype(np.float64)
    for at in places(number):
        out[at : at + rng.integers(1, 4)] += 10 ** (level_db / 20) * rng.choice([-1, 1])
    return out.astype(np.float32)


def with_gaps(samples, gap_ms, number=10, *, is_held=False):
    out = samples.astype(np.float32)
    for at in places(number):
        out[at : at + round(gap_ms * RATE_HZ / 1000)] = out[at] if is_held else 0
    return out


@pytest.mark.parametrize("name", CLEAN)
def test_clean_sound_is_not_broken(sounds, name):
    assert counted(sounds[name].astype(np.float32)) == (0, 0)


@pytest.mark.parametrize(
    ("name", "level_db", "least"), [("sine", -40, 20), ("cadence", -12, 20), ("cadence", -20, 18), ("cadence", -30, 14)]
)
def test_planted_clicks_are_counted(sounds, name, level_db, least):
    clicks, dropouts = counted(with_clicks(sounds[name], level_db))
    assert least <= clicks <= 20
    assert dropouts == 0


@pytest.mark.parametrize("name", ["beat", "drums 1", "plucks"])
def test_clicks_between_attacks_are_counted_and_none_that_is_not_there(sounds, name):
    """A click within 60 ms of a louder attack hides; the others are heard."""
    clicks, _ = counted(with_clicks(sounds[name], -12))
    assert 8 <= clicks <= 20


@pytest.mark.parametrize("rate_hz", [16_000, 22_050, 48_000, 96_000])
def test_clicks_and_gaps_at_other_rates(signals, rate_hz):
    samples = signals.cadence(4, "minor", 6.0, rate_hz)
    for second in (1.3, 2.4, 4.55):
        samples[round(second * rate_hz)] += 0.4
    samples[round(3.3 * rate_hz) : round(3.32 * rate_hz)] = 0
    assert counted(samples, rate_hz=rate_hz) == (3, 1)


def test_a_click_of_one_channel_counts_once_and_as_much_as_one_of_both(sounds):
    quiet, clicked = sounds["cadence"], with_clicks(sounds["cadence"], -12)
    assert counted(np.stack([quiet, clicked], axis=1))[0] == counted(np.stack([clicked, clicked], axis=1))[0] == 20


@pytest.mark.parametrize("is_held", [False, True], ids=["zeros", "held"])
@pytest.mark.parametrize("gap_ms", [5, 10, 50, 150])
def test_planted_gaps_are_counted(sounds, gap_ms, is_held):
    _, dropouts = counted(with_gaps(sounds["cadence"], gap_ms, is_held=is_held))
    assert 9 <= dropouts <= 10


def test_gaps_in_drums_are_counted_where_they_sound(sounds):
    assert 5 <= counted(with_gaps(sounds["beat"], 10))[1] <= 10


@pytest.mark.parametrize("gap_ms", [2, 300])
def test_shorter_gaps_and_pauses_are_no_dropouts(sounds, gap_ms):
    assert counted(with_gaps(sounds["cadence"], gap_ms))[1] == 0


def test_breaks_on_the_cuts_of_blocks_are_counted_once(signals):
    """Blocks of 10 s are searched apart, each without its ends, and the ends of two together."""
    samples = signals.cadence(0, "major", 31.0, RATE_HZ, chord_s=1.3)
    for shift in (-2, -1, 0, 1):
        clicked, gapped = samples.copy(), samples.copy()
        for second in (10, 20, 30):
            at = second * RATE_HZ + 13_000 * shift
            clicked[at] += 0.5
            gapped[at - 200 : at + 300] = 0
        assert counted(clicked)[0] == counted(clicked, sizes=41)[0] == 3
        assert counted(gapped)[1] == 3


def test_control_without_the_model_attacks_are_clicks(sounds, monkeypatch):
    monkeypatch.setattr(breaks, "_is_click", lambda *_: True)
    assert counted(sounds["clipped"].astype(np.float32))[0] > 0


def test_control_without_the_range_square_waves_drop_out(sounds, monkeypatch):
    monkeypatch.setattr(breaks, "INSIDE_SHARE", -1.0)
    assert counted(sounds["square 50"].astype(np.float32))[1] > 100


def test_control_without_the_levels_pauses_of_drums_are_dropouts(sounds, monkeypatch):
    monkeypatch.setattr(breaks, "is_dropout", lambda *_: True)
    assert counted(sounds["drums 1"].astype(np.float32))[1] > 5


@pytest.mark.parametrize("samples", [0, 1, 3, 200, 5000])
def test_a_few_samples_are_searched_without_a_crash(samples):
    assert counted(np.full((samples, 2), 0.1, np.float32)) == (0, 0)
