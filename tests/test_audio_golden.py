"""Ten synthesised clips are heard as they were last time.

Drift on purpose is written anew with one command, and shows in the diff::

    KEEPTAKE_REGENERATE_GOLDENS=1 .venv/bin/pytest tests/test_audio_golden.py
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from keeptake.audio.analyze import PART_VERSIONS, analyze

FOLDER = Path(__file__).parent / "golden" / "analysis"


def clips(signals):
    beat, cadence, noise = signals.drum_beat, signals.cadence, signals.white_noise
    house = beat(124, 12.0, 44_100)
    loud = np.clip(6 * beat(90, 8.0, 44_100), -1, 1)
    return {
        "beat_70": (beat(70, 16.0, 22_050), 22_050),
        "beat_100_in_three": (beat(100, 16.0, 22_050, beats_per_bar=3), 22_050),
        "beat_124_stereo": (np.stack([house, 0.5 * house], axis=1), 44_100),
        "beat_160_swing": (beat(160, 12.0, 22_050, swing=1 / 3), 22_050),
        "drums_alone": (beat(110, 12.0, 22_050, chords_hz=((),)), 22_050),
        "cadence_a_minor": (cadence(9, "minor", 8.0, 32_000), 32_000),
        "cadence_eb_major_low": (cadence(3, "major", 8.0, 22_050, tuning_cents=-30.0), 22_050),
        "clipped": (loud, 44_100),
        "antiphase": (np.stack([house, -house], axis=1), 44_100),
        "noise": (noise(6.0, 22_050), 22_050),
    }


def heard(samples, rate_hz):
    parts = analyze([samples.astype(np.float32)], rate_hz)
    return {
        name: {"version": part.version, "status": part.status, "reason": part.reason, "values": part.values}
        for name, part in sorted(parts.items())
    }


def assert_close(measured, golden, where):
    if isinstance(golden, dict):
        assert measured.keys() == golden.keys(), where
        for key in golden:
            assert_close(measured[key], golden[key], f"{where}.{key}")
    elif isinstance(golden, list):
        assert len(measured) == len(golden), where
        for number, (one, other) in enumerate(zip(measured, golden, strict=True)):
            assert_close(one, other, f"{where}[{number}]")
    elif isinstance(golden, float) and not isinstance(measured, bool):
        assert measured == pytest.approx(golden, rel=2e-3, abs=2e-3), where
    else:
        assert measured == golden, where


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.json")) or ["none"])
def test_golden(signals, name):
    samples, rate_hz = clips(signals)[name]
    assert_close(heard(samples, rate_hz), json.loads((FOLDER / f"{name}.json").read_text()), name)


def test_goldens_are_complete_and_of_these_versions(signals):
    if os.environ.get("KEEPTAKE_REGENERATE_GOLDENS"):
        FOLDER.mkdir(parents=True, exist_ok=True)
        for name, (samples, rate_hz) in clips(signals).items():
            (FOLDER / f"{name}.json").write_text(json.dumps(heard(samples, rate_hz), indent=1) + "\n")
    files = sorted(FOLDER.glob("*.json"))
    assert [path.stem for path in files] == sorted(clips(signals))
    for path in files:
        versions = {name: part["version"] for name, part in json.loads(path.read_text()).items()}
        assert versions == PART_VERSIONS, f"{path.name} is of older parts: write the goldens anew and read the diff"
