"""The rule that weighs tagger and speech detector, on made-up witnesses."""

import numpy as np
import pytest

from keeptake.audio.vocals import NO_VOCAL_TAGS, VOCAL_TAGS, merged_segments, tag_log_ratio, vocals

TAGS = (*sorted(VOCAL_TAGS), *sorted(NO_VOCAL_TAGS), "guitar")


def witnesses(sung, *, spoken=0.0, patches=10):
    """Ten patches of 3 s: the share `sung` of them with clear vocal tags, speech in the share `spoken` of each patch's frames."""
    tags = np.tile([0.001 if tag in VOCAL_TAGS else 0.15 for tag in TAGS], (patches, 1))
    tags[: round(sung * patches)] = [0.2 if tag in VOCAL_TAGS else 0.01 for tag in TAGS]
    frames = round(patches * 3.0 / 0.032)
    starts_s = np.arange(frames) * 0.032
    speech = np.where(starts_s % 3.0 < 3.0 * spoken, 0.98, 0.01)
    return vocals(
        tags,
        tags=TAGS,
        patch_starts_s=np.arange(patches) * 3.0,
        speech_probability=speech,
        speech_starts_s=starts_s,
        duration_s=patches * 3.0,
    )


def test_neither_witness_no_vocals():
    heard = witnesses(0.0)
    assert heard == {
        "vocals_probability": heard["vocals_probability"],
        "has_vocals": False,
        "vocal_segments_s": [],
        "vocal_share": 0.0,
    }
    assert heard["vocals_probability"] < 0.05


@pytest.mark.parametrize(("sung", "spoken"), [(1.0, 0.5), (1.0, 0.0), (0.4, 0.4)])
def test_singing_is_heard_even_where_no_speech_is(sung, spoken):
    assert witnesses(sung, spoken=spoken)["has_vocals"] is True


def test_control_one_sung_patch_in_ten_makes_no_vocal_take():
    assert witnesses(0.1)["has_vocals"] is False


def test_more_evidence_never_lowers_the_probability():
    by_song = [witnesses(share)["vocals_probability"] for share in np.linspace(0, 1, 11)]
    by_speech = [witnesses(0.3, spoken=share)["vocals_probability"] for share in np.linspace(0, 1, 11)]
    assert by_song == sorted(by_song)
    assert by_speech == sorted(by_speech)


def test_segments_are_where_the_voice_is():
    heard = witnesses(0.5, spoken=0.3)
    assert heard["vocal_segments_s"] == [[0.0, 15.0]]
    assert heard["vocal_share"] == pytest.approx(0.5)


def test_segments_merge_and_end_with_the_take():
    assert merged_segments(np.array([6.0, 0.0, 1.5]), length_s=3.0, duration_s=8.0) == [[0.0, 4.5], [6.0, 8.0]]
    assert merged_segments(np.array([]), length_s=3.0, duration_s=8.0) == []


def test_log_ratio_is_bounded_for_certain_networks():
    certain = np.array([[1.0 if tag in VOCAL_TAGS else 0.0 for tag in TAGS], [0.0] * len(TAGS)])
    ratio = tag_log_ratio(certain, TAGS)
    assert np.isfinite(ratio).all()
    assert ratio[1] == 0
