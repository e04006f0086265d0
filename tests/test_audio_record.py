"""Whatever is heard fits its record: every value there, of its type and within its range."""

import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from keeptake.audio.analyze import FEATURE_COLUMNS, PART_VERSIONS, analyze
from keeptake.audio.record import RECORDS, Rhythm
from keeptake.hearing import load_networks
from keeptake.model_store import ModelStore

RATE_HZ = 22_050
GOLDENS = sorted((Path(__file__).parent / "golden" / "analysis").glob("*.json"))


def takes(signals, name):
    beat = signals.drum_beat(104, 6.0, RATE_HZ)
    return {
        "beat": lambda: beat,
        "quiet": lambda: 1e-4 * beat,
        "loud": lambda: 4 * beat,
        "integers as floats": lambda: 2**31 * beat,
        "click": lambda: np.eye(1, RATE_HZ, 100, dtype=np.float32)[0],
        "noise": lambda: signals.white_noise(3.0, RATE_HZ),
        "sine": lambda: signals.sine(440, 8.0, RATE_HZ),
        "square": lambda: np.sign(signals.sine(110, 4.0, RATE_HZ)),
        "offset": lambda: np.full(2 * RATE_HZ, 0.5),
        "silence": lambda: np.zeros(8 * RATE_HZ),
        "short": lambda: beat[: RATE_HZ // 10],
        "one sample": lambda: beat[:1],
        "one side": lambda: np.stack([beat, np.zeros_like(beat)], axis=1),
        "opposite sides": lambda: np.stack([beat, -beat], axis=1),
        "song": lambda: signals.song(120, "ABAC", 2, RATE_HZ),
    }[name]()


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    return load_networks(ModelStore(tmp_path_factory.mktemp("models")))


def check(part, values):
    RECORDS[part].model_validate_json(json.dumps(values, allow_nan=False))


@pytest.mark.parametrize(
    "name",
    [
        *(
            "beat",
            "quiet",
            "loud",
            "integers as floats",
            "click",
            "noise",
            "sine",
            "square",
            "offset",
            "silence",
            "short",
            "one sample",
        ),
        *("one side", "opposite sides", "song"),
    ],
)
def test_what_is_heard_fits(signals, networks, name):
    parts = analyze([np.asarray(takes(signals, name), np.float32)], RATE_HZ, networks=networks)
    for part, answer in parts.items():
        if answer.status == "ok":
            check(part, answer.values)
        else:
            assert answer.values == {} and answer.reason is not None


def test_the_goldens_fit():
    assert len(GOLDENS) == 10
    for path in GOLDENS:
        for part, answer in json.loads(path.read_text()).items():
            if answer["status"] == "ok":
                check(part, answer["values"])


def test_every_part_and_column_has_a_record():
    assert RECORDS.keys() == PART_VERSIONS.keys()
    assert {
        f"{part}.{column}"
        for part, columns in FEATURE_COLUMNS.items()
        for column in columns
        if column not in RECORDS[part].model_fields
    } == set()
    assert all(field.description for record in RECORDS.values() for field in record.model_fields.values())


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"tempo_bpm": 0.0}, "greater than 0"),
        ({"tempo_bpm": "120"}, "valid number"),
        ({"tempo_bpm": None}, "valid number"),
        ({"tempo_confidence": 1.1}, "less than or equal to 1"),
        ({"beats_s": [0.5, float("inf")]}, "finite"),
        ({"tempo": 120.0}, "not permitted"),
    ],
)
def test_what_does_not_fit_is_named(change, complaint):
    values = json.loads((GOLDENS[0].parent / "beat_70.json").read_text())["rhythm"]["values"]
    (field,) = change
    with pytest.raises(ValidationError, match=complaint) as refused:
        Rhythm.model_validate(values | {"tempo_candidates_bpm": []} | change)
    assert [error["loc"][0] for error in refused.value.errors()] == [field]
