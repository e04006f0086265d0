"""How large the splits of a version became, beside what its policy asks for."""

import polars as pl
import pytest

from keeptake.formats.shares import MIN_CLIPS, split_shares, unlike_asked

TENTHS = {"valid": 0.1, "test": 0.1, "test_providers": []}


def rows(*, duration_s: float = 30.0, provider: str = "suno", **clips: int) -> pl.DataFrame:
    splits = [split for split, count in clips.items() for _ in range(count)]
    names = [f"{provider} {number // 2}" for number in range(len(splits))]
    return pl.DataFrame({"split": splits, "parent": names, "duration_s": duration_s, "provider": provider})


def test_clips_takes_and_minutes_stand_beside_the_shares():
    found = split_shares(rows(train=8, valid=25, test=2), TENTHS)
    assert found.select("split", "clips", "takes", "minutes").rows() == [
        ("train", 8, 4, 4.0),
        ("valid", 25, 13, 12.5),
        ("test", 2, 2, 1.0),
    ]
    assert found["asked"].to_list() == pytest.approx([0.8, 0.1, 0.1])
    assert found["of_clips"].to_list() == found["of_minutes"].to_list() == pytest.approx([8 / 35, 25 / 35, 2 / 35])


def test_a_version_turned_over_by_one_long_take_is_told():
    """Of 35 clips 25 stood in valid, 24 of them of one take of ten minutes, and nothing said so."""
    assert unlike_asked(rows(train=8, valid=25, test=2), TENTHS) == [
        "train was asked to hold 80% and holds 23% of the clips, 23% of the minutes",
        "valid was asked to hold 10% and holds 71% of the clips, 71% of the minutes",
    ]


@pytest.mark.parametrize("clips", [{"train": 80, "valid": 10, "test": 10}, {"train": 72, "valid": 18, "test": 10}])
def test_control_shares_near_those_asked_for_are_told_nothing_of(clips):
    assert unlike_asked(rows(**clips), TENTHS) == []


def test_minutes_count_beside_clips():
    uneven = pl.concat([rows(train=80, test=10), rows(valid=10, duration_s=120.0)])
    assert [said.split()[0] for said in unlike_asked(uneven, TENTHS)] == ["train", "valid"]


def test_an_empty_split_is_told_where_it_was_asked_for():
    assert [said.split()[0] for said in unlike_asked(rows(train=91, valid=9), TENTHS)] == ["test"]
    assert unlike_asked(rows(train=91, valid=9), TENTHS | {"valid": 0.1, "test": 0.0}) == []


def test_few_clips_and_providers_held_for_test_are_passed_over():
    assert unlike_asked(rows(valid=MIN_CLIPS - 1), TENTHS) == []
    held = pl.concat([rows(train=80, valid=10, test=10), rows(test=100, provider="Udio")])
    assert unlike_asked(held, TENTHS | {"test_providers": ["udio"]}) == []
    assert len(unlike_asked(held, TENTHS)) == 2
