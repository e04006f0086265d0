"""The formulas: golden values, range, monotony."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keeptake.curation.quality import SAID, score

HEARD = {"rhythm_confidence": 0.8, "tempo_stability": 0.9, "no_clipping": 1.0, "dynamic_range": 0.4}  # 0.39 in seed_v1

unit = st.one_of(st.none(), st.floats(0, 1))
heard = st.fixed_dictionaries(dict.fromkeys(HEARD, unit))
said = st.fixed_dictionaries(
    {
        "liked": st.sampled_from([None, True, False]),
        "rating": st.sampled_from([None, 1, 2, 3, 4, 5]),
        "used": st.sampled_from([None, True, False]),
    }
)


def score_rows(rows):
    columns = dict.fromkeys(HEARD, pl.Float64()) | dict(SAID)
    return score(pl.DataFrame([{name: row.get(name) for name in columns} for row in rows], schema=columns)).to_dicts()


def totals(row):
    scored = score_rows([row])[0]
    return scored["seed_v1"], scored["v2"]


@pytest.mark.parametrize(
    ("said", "seed_v1"),
    [
        ({}, 0.39),
        ({"liked": True}, 0.59),
        ({"liked": True, "used": True}, 0.89),
        ({"liked": True, "used": True, "rating": 5}, 0.945),
        ({"rating": 1}, 0.295),
        ({"liked": False}, 0.39),  # the known flaw: a dislike changes nothing
        ({"rating": 2}, 0.395),  # and two stars raise a weak take
    ],
)
def test_seed_v1_is_the_original_formula(said, seed_v1):
    assert totals(HEARD | said)[0] == pytest.approx(seed_v1, abs=1e-9)


def test_seed_v1_reaches_one_and_no_more():
    perfect = dict.fromkeys(HEARD, 1.0) | {"liked": True, "used": True, "rating": 5}
    assert totals(perfect)[0] == 1.0


def test_v2_golden():
    # analysis 0.39 of 0.5 = 0.78; log-odds 1.265666
    assert totals(HEARD)[1] == pytest.approx(0.78, abs=1e-6)
    assert totals(HEARD | {"liked": False})[1] == pytest.approx(0.324244, abs=1e-6)
    assert totals(HEARD | {"rating": 5, "used": True})[1] == pytest.approx(0.986152, abs=1e-6)


def test_the_terms_of_seed_v1_add_up_to_its_total():
    terms = score_rows([HEARD | {"rating": 4, "liked": True}])[0]["seed_v1_terms"]
    assert terms["rhythm_confidence"] == pytest.approx(0.16)
    assert sum(terms.values()) == pytest.approx(0.695)


def test_sums_of_tenths_meet_their_threshold():
    row = {
        "rhythm_confidence": 1.0,
        "tempo_stability": 0.0,
        "no_clipping": 0.0,
        "dynamic_range": 0.0,
        "liked": True,
        "used": True,
    }
    assert totals(row)[0] == 0.7  # 0.2 + 0.2 + 0.3 is 0.7000000000000001 in floating point


@given(heard, said)
def test_every_total_lies_in_the_unit_interval(heard, said):
    assert all(0 <= total <= 1 for total in totals(heard | said))


@given(heard, said, st.integers(1, 4))
def test_a_better_rating_never_lowers_v2(heard, said, rating):
    assert totals(heard | said | {"rating": rating})[1] <= totals(heard | said | {"rating": rating + 1})[1]


@given(heard, said)
def test_a_dislike_always_lowers_v2(heard, said):
    disliked = totals(heard | said | {"liked": False})[1]
    assert disliked < totals(heard | said | {"liked": None})[1] < totals(heard | said | {"liked": True})[1]


@given(heard)
def test_missing_feedback_is_neutral_in_v2(heard):
    assert totals(heard)[1] == totals(heard | {"rating": 3})[1]


def test_nan_and_wrong_numbers_of_an_old_analysis_do_not_leak_into_a_score():
    assert totals({"rhythm_confidence": float("nan"), "no_clipping": 7.0})[0] == 0.1


def test_a_frame_without_any_feedback_is_scored():
    assert score_rows([]) == []
    assert pl.DataFrame(score_rows([HEARD])).height == 1
