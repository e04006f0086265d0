"""Which takes enter a dataset, and what speaks against the others: rules, duplicates, splits, quotas."""

import hashlib

import numpy as np
import polars as pl
import pytest

from keeptake.curation.balance import capped
from keeptake.curation.policy import Policy, read_policy
from keeptake.curation.select import CANDIDATE, PAIRS, Selection, choose
from keeptake.curation.splits import PREVIOUS
from keeptake.records import file_id

OPEN = {"min_score": 0.0, "defects": [], "exclude_disliked": False}


def policy(**sections: object) -> Policy:
    return read_policy({"name": "test", "select": OPEN} | sections, origin="test")


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def take(number: int, **fields: object) -> dict[str, object]:
    good = {
        "generation": number,
        "generation_id": f"gen_{number}",
        "file_id": file_id(f"gen_{number}"),
        "user_id": f"user{number}",
        "provider": "suno",
        "prompt_key": f"prompt {number}",
        "genre": "trap",
        "audio_sha256": sha(f"audio {number}"),
        "duration_s": 20.0,
        "is_heard": True,
        "has_vocals": False,
        "score": 0.8,
        "is_erased": False,
    }
    return good | fields


def frame(*takes: dict[str, object]) -> pl.DataFrame:
    return pl.DataFrame([{column: row.get(column) for column in CANDIDATE} for row in takes], schema=CANDIDATE)


def pairs(*numbers: tuple[int, int]) -> pl.DataFrame:
    rows = [sorted((sha(f"audio {a}"), sha(f"audio {b}"))) for a, b in numbers]
    return pl.DataFrame(rows, schema=PAIRS, orient="row")


def published(takes: pl.DataFrame, splits: dict[int, str]) -> pl.DataFrame:
    rows = takes.filter(pl.col("generation").is_in(list(splits))).select([name for name in PREVIOUS if name != "split"])
    return rows.with_columns(split=pl.col("generation").replace_strict(splits, return_dtype=pl.String)).select(list(PREVIOUS))


def reasons(selection: Selection) -> dict[int, str]:
    return dict(selection.left_out.select("generation", "reason").iter_rows())


def splits(selection: Selection) -> dict[int, str]:
    return dict(selection.kept.select("generation", "split").iter_rows())


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"is_erased": True}, "erased"),
        ({"has_consent": False}, "no-consent"),
        ({"audio_sha256": None, "audio_reason": "undecodable"}, "not-decoded"),
        ({"is_heard": False}, "not-heard"),
        ({"duration_s": None}, "not-heard"),
        ({"provider": "udio"}, "provider"),
        ({"provider": "musicgen"}, "licence"),
        ({"duration_s": 0.99}, "too-short"),
        ({"duration_s": 601.0}, "too-long"),
        ({"has_vocals": True}, "vocals"),
        ({"has_vocals": None}, "vocals"),
        ({"has_clipping": True}, "defect"),
        ({"liked": False}, "disliked"),
        ({"score": None}, "not-scored"),
        ({"score": 0.6999}, "low-score"),
        ({"adherence": 0.2}, "low-adherence"),
    ],
)
def test_each_rule_names_itself(fields, reason):
    strict = read_policy(
        {
            "name": "strict",
            "select": {"providers": ["suno", "musicgen"], "vocals": "without", "max_duration_s": 600, "min_adherence": 0.5},
            "licences": {"is_required": True, "by_provider": {"suno": "owned"}},
        },
        origin="test",
    )
    found = choose(frame(take(1), take(2, **fields)), strict)
    assert reasons(found) == {2: reason}
    assert found.kept["generation"].to_list() == [1]
    assert found.left_out["detail"].is_not_null().all()


def test_consent_that_nobody_gave_counts_as_the_policy_says():
    takes = frame(take(1), take(2, has_consent=True), take(3, has_consent=False))
    assert reasons(choose(takes, policy())) == {3: "no-consent"}
    assert reasons(choose(takes, policy(select=OPEN | {"consent": "given"}))) == {1: "no-consent", 3: "no-consent"}


def test_a_blocked_provider_never_passes():
    takes = frame(take(1), take(2, provider="Udio"))
    assert reasons(choose(takes, policy(select=OPEN | {"blocked_providers": ["udio"]}))) == {2: "provider"}


def test_first_failing_rule_is_the_reason():
    found = choose(frame(take(1, score=0.1, has_clipping=True, is_erased=True)), policy(select={"min_score": 0.7}))
    assert reasons(found) == {1: "erased"}


def test_details_say_what_was_found():
    found = choose(frame(take(1, score=0.41), take(2, has_clipping=True, is_silent=True)), policy(select={}))
    assert found.left_out["detail"].to_list() == ["0.41 is below 0.7", "has_clipping, is_silent"]


def test_score_on_the_threshold_passes_and_adherence_nobody_could_judge_passes():
    found = choose(frame(take(1, score=0.7)), policy(select={"min_score": 0.7, "min_adherence": 0.5}))
    assert reasons(found) == {}


def test_every_take_is_told_once():
    takes = frame(*(take(n, score=n / 100, prompt_key=f"p{n % 40}") for n in range(100)))
    found = choose(takes, policy(select={"min_score": 0.3}, balance={"max_takes": 20}), pairs=pairs((50, 60), (70, 71)))
    told = sorted([*found.kept["generation"], *found.left_out["generation"]])
    assert told == list(range(100))
    assert sum(found.reasons().values()) + found.kept.height == 100


def test_one_take_of_each_set_of_duplicates_stays_the_best():
    takes = frame(take(1, score=0.8), take(2, score=0.9), take(3, score=0.7), take(4))
    found = choose(takes, policy(), pairs=pairs((1, 2), (2, 3)))
    assert reasons(found) == {1: "duplicate", 3: "duplicate"}
    assert found.left_out["detail"].to_list() == ["the same audio as gen_2"] * 2


def test_same_bytes_are_duplicates_without_any_pair():
    found = choose(frame(take(1), take(2, audio_sha256=sha("audio 1"), score=0.9)), policy())
    assert reasons(found) == {1: "duplicate"}


def test_ties_between_duplicates_fall_by_hash_whatever_the_order():
    takes = [take(n, audio_sha256=sha("same")) for n in range(1, 9)]
    kept = {choose(frame(*order), policy()).kept["generation_id"][0] for order in (takes, takes[::-1], takes[4:] + takes[:4])}
    assert kept == {min((f"gen_{n}" for n in range(1, 9)), key=file_id)}


def test_siblings_and_duplicates_share_a_group():
    takes = frame(take(1), take(2, prompt_key="prompt 1"), take(3), take(4, prompt_key="prompt 3"), take(5))
    found = choose(takes, policy(), pairs=pairs((2, 3)))
    groups = dict(found.kept.select("generation", "group_id").iter_rows())
    assert {groups[n] for n in groups if n < 5} == {file_id("gen_1")}
    assert groups[5] == file_id("gen_5")


def test_policies_of_equal_shares_place_a_take_alike_whatever_else_they_keep():
    """A copy was named after the earliest take that passed: in valid of one dataset, and its original in test of another."""
    several = frame(*(take(n, duration_s=40.0) for n in range(200)), *(take(200 + n) for n in range(200)))
    copies = pairs(*((n, 200 + n) for n in range(200)))
    shares = {"splits": {"valid": 0.2, "test": 0.2}}
    long = choose(several, policy(select=OPEN | {"min_duration_s": 30.0}, **shares), pairs=copies)
    short = choose(several, policy(select=OPEN | {"max_duration_s": 30.0}, **shares), pairs=copies)
    assert {n + 200: split for n, split in splits(long).items()} == splits(short)
    assert set(splits(short).values()) == {"train", "valid", "test"}

    alone = choose(several.filter(pl.col("duration_s") < 30), policy(**shares), pairs=copies)  # control: named by those that pass
    assert splits(alone) != splits(short)


def test_a_take_that_does_not_pass_drives_none_out():
    several = frame(take(1), take(2), take(3, score=0.0))
    before = published(several, {1: "test", 2: "train"})
    chosen = choose(several, policy(select=OPEN | {"min_score": 0.5}), pairs=pairs((1, 3), (2, 3)), previous=before)
    assert splits(chosen) == {1: "test", 2: "train"}


def test_a_new_take_comes_before_an_earlier_one_that_does_not_pass():
    several = frame(take(1), take(2), take(3, score=0.0), take(4))
    before = published(several, {1: "test", 2: "train"})
    parts = pairs((1, 3), (3, 4), (2, 4))
    chosen = choose(several, policy(select=OPEN | {"min_score": 0.5}), excerpts=parts, previous=before)
    assert splits(chosen) == {1: "test", 2: "train", 4: "train"}


def test_users_hold_together_only_where_the_policy_says_so():
    takes = frame(take(1, user_id="u"), take(2, user_id="u"))
    assert choose(takes, policy()).kept["group_id"].n_unique() == 2
    assert choose(takes, policy(splits={"hold_out_users": True})).kept["group_id"].n_unique() == 1


def test_held_out_provider_goes_to_test_with_its_whole_group():
    takes = frame(*(take(n) for n in range(40)), take(40, provider="udio", prompt_key="prompt 7"))
    found = splits(choose(takes, policy(splits={"test_providers": ["udio"], "test": 0.0, "valid": 0.0})))
    assert {n for n, split in found.items() if split == "test"} == {7, 40}


def test_a_take_of_a_held_out_provider_that_does_not_pass_pulls_nothing_into_test():
    takes = frame(take(1), take(2, provider="udio", prompt_key="prompt 1", score=0.0))
    held_out = {"test_providers": ["udio"], "test": 0.0, "valid": 0.0}
    assert splits(choose(takes, policy(select=OPEN | {"min_score": 0.5}, splits=held_out))) == {1: "train"}
    assert splits(choose(takes, policy(splits=held_out))) == {1: "test", 2: "test"}  # control: it passes


def test_what_was_published_stays_where_it_was_though_its_provider_is_held_out_since():
    takes = frame(take(1, provider="udio"), take(2, provider="udio"))
    rules = policy(splits={"test_providers": ["udio"], "test": 0.0, "valid": 0.0})
    assert splits(choose(takes, rules, previous=published(takes, {1: "train"}))) == {1: "train", 2: "test"}


def test_a_take_that_was_published_in_two_splits_counts_for_test():
    takes = frame(take(1))
    for order in (("train", "test"), ("test", "train")):
        history = pl.concat([published(takes, {1: split}) for split in order])
        assert splits(choose(takes, policy(), previous=history)) == {1: "test"}


def test_a_provider_is_one_however_it_is_spelled():
    """A held-out provider that one source spells "Udio" was in train; a licence of "Suno" left out every take of "suno"."""
    takes = frame(*(take(n) for n in range(40)), take(40, provider="Udio"), take(41, provider="SUNO"), take(42, provider="other"))
    licences = {"is_required": True, "by_provider": {"Suno": "owned", "udio": "owned"}}
    chosen = choose(takes, policy(splits={"test_providers": ["uDIO"], "test": 0.0, "valid": 0.0}, licences=licences))
    assert {n for n, split in splits(chosen).items() if split == "test"} == {40}
    assert reasons(chosen) == {42: "licence"}


def test_shares_of_splits_are_those_of_the_policy():
    found = choose(frame(*(take(n) for n in range(4000))), policy(splits={"test": 0.1, "valid": 0.2}))
    rows = dict(found.kept.group_by("split").len().iter_rows())
    assert rows["test"] == pytest.approx(400, abs=60) and rows["valid"] == pytest.approx(800, abs=80)


def random_world(seed: int, count: int, first: int = 0) -> tuple[pl.DataFrame, pl.DataFrame]:
    rng = np.random.default_rng(seed)
    takes = [
        take(n, prompt_key=f"p{rng.integers(count)}", user_id=f"u{rng.integers(20)}", score=float(rng.random()))
        for n in range(first, first + count)
    ]
    near = [(int(rng.integers(first + count)), int(rng.integers(first, first + count))) for _ in range(count // 10)]
    return frame(*takes), pairs(*((a, b) for a, b in near if a != b))


def related(takes: pl.DataFrame, evidence: pl.DataFrame, users: bool) -> list[tuple[int, int]]:
    """Direct evidence between kept takes, found the slow way."""
    rows = takes.to_dicts()
    known = set(evidence.iter_rows())
    return [
        (a["generation"], b["generation"])
        for at, a in enumerate(rows)
        for b in rows[at + 1 :]
        if a["prompt_key"] == b["prompt_key"]
        or (users and a["user_id"] == b["user_id"])
        or tuple(sorted((a["audio_sha256"], b["audio_sha256"]))) in known
    ]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("users", [False, True])
def test_no_evidence_ever_joins_two_splits(seed, users):
    takes, evidence = random_world(seed, 120)
    found = choose(takes, policy(splits={"valid": 0.25, "test": 0.25, "hold_out_users": users}), pairs=evidence)
    where = splits(found)
    assert all(where[a] == where[b] for a, b in related(found.kept, evidence, users))


def test_control_hash_of_the_row_instead_of_the_group_leaks():
    takes, evidence = random_world(0, 120)
    found = choose(takes, policy(splits={"valid": 0.25, "test": 0.25}), pairs=evidence)
    by_row = {row["generation"]: int(row["file_id"][8:], 16) % 2 for row in found.kept.to_dicts()}
    assert any(by_row[a] != by_row[b] for a, b in related(found.kept, evidence, users=False))


def published_growth(seed: int) -> tuple[Selection, Selection, pl.DataFrame]:
    """A version, and the next one after 1,000 more takes and new pairs, some of them between old and new."""
    rules = policy(splits={"valid": 0.2, "test": 0.2})
    old, old_pairs = random_world(seed, 600)
    new, new_pairs = random_world(seed + 100, 1000, first=600)
    first = choose(old, rules, pairs=old_pairs)
    everything = pl.concat([old_pairs, new_pairs])
    history = published(old, splits(first))
    return first, choose(pl.concat([old, new]), rules, pairs=everything, previous=history), everything


@pytest.mark.parametrize("seed", range(3))
def test_a_thousand_new_takes_move_no_old_one(seed):
    first, second, evidence = published_growth(seed)
    before, after = splits(first), splits(second)
    assert {n: (before[n], after[n]) for n in before if n in after and before[n] != after[n]} == {}
    assert all(after[a] == after[b] for a, b in related(second.kept, evidence, users=False))
    assert {"bridges-splits"} <= set(second.left_out["reason"])


@pytest.mark.parametrize("seed", range(3))
def test_choosing_again_after_publication_chooses_the_same(seed):
    """Rows of a published test split come first in quotas and among duplicates; that once could have changed the next choice."""
    takes, evidence = random_world(seed, 400)
    takes = takes.with_columns(genre=pl.Series([f"genre{number % 7 % 4}" for number in range(400)]))
    rules = policy(balance={"genre_cap": 0.3, "genre_floor": 0.1, "max_takes": 150}, splits={"valid": 0.2, "test": 0.2})
    first = choose(takes, rules, pairs=evidence)
    second = choose(takes, rules, pairs=evidence, previous=published(takes, splits(first)))
    assert first.kept.height == 150 and second.kept.equals(first.kept)


def test_new_take_that_would_join_two_splits_is_left_out():
    takes = frame(take(1), take(2), take(3, prompt_key="prompt 1"))
    found = choose(takes, policy(), pairs=pairs((2, 3)), previous=published(takes, {1: "train", 2: "test"}))
    assert reasons(found) == {3: "bridges-splits"}
    assert splits(found) == {1: "train", 2: "test"}


def test_takes_that_were_told_apart_join_no_other_group():
    takes = frame(take(1), take(2), take(3, prompt_key="prompt 1"), take(4))
    history = published(takes, {1: "test", 2: "train", 4: "valid"})
    found = choose(takes, policy(), pairs=pairs((2, 3)), previous=history)
    assert splits(found) == {1: "test", 2: "train", 4: "valid"}
    assert found.kept["group_id"].to_list() == [file_id(f"gen_{n}") for n in (1, 2, 4)]


def test_published_train_row_leaves_where_new_evidence_links_it_to_test():
    takes = frame(take(1), take(2), take(3, prompt_key="prompt 1"))
    history = published(takes, {1: "train", 2: "test", 3: "train"})
    found = choose(takes, policy(), pairs=pairs((1, 2)), previous=history)
    assert reasons(found) == {1: "leaks-into-test"}
    assert splits(found) == {2: "test", 3: "train"}


def test_take_that_stood_in_test_once_returns_to_test_and_its_kin_never_enter_train():
    takes = frame(take(1), take(2, prompt_key="prompt 1"))
    gone = frame(take(1, score=0.0), take(2, prompt_key="prompt 1"))
    history = published(takes, {1: "test"})
    rules = policy(select={"min_score": 0.5})
    assert splits(choose(gone, rules, previous=history)) == {2: "test"}
    assert splits(choose(takes, rules, previous=history)) == {1: "test", 2: "test"}


def test_a_new_take_that_would_join_train_and_what_stood_in_test_once_is_left_out():
    takes = frame(take(1, score=0.0), take(2), take(3))
    history = published(takes, {1: "test", 2: "train"})
    found = choose(takes, policy(select=OPEN | {"min_score": 0.5}), pairs=pairs((1, 3), (2, 3)), previous=history)
    assert reasons(found) == {1: "low-score", 3: "bridges-splits"} and splits(found) == {2: "train"}


def medley(count: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """As many takes as asked for, each with a part of its own sound as the next take; and what pairs them."""
    takes = frame(*(take(n) for n in range(2 * count)))
    return takes, pairs(*((n, n + 1) for n in range(0, 2 * count, 2)))


def test_a_part_of_a_take_stands_in_the_split_of_the_whole_and_both_stay():
    """Excerpts made no group: a clip was in test while the song that it was cut from was in train."""
    takes, parts = medley(60)
    found = choose(takes, policy(splits={"valid": 0.25, "test": 0.25}), excerpts=parts)
    where = splits(found)
    assert reasons(found) == {} and len(where) == 120
    assert all(where[n] == where[n + 1] for n in range(0, 120, 2))
    assert set(where.values()) == {"train", "valid", "test"}


def test_control_without_the_excerpts_parts_and_wholes_stand_apart():
    takes, _ = medley(60)
    where = splits(choose(takes, policy(splits={"valid": 0.25, "test": 0.25})))
    assert any(where[n] != where[n + 1] for n in range(0, 120, 2))


def test_a_whole_whose_parts_were_published_in_two_splits_stays_away():
    takes = frame(take(1), take(2), take(3))
    found = choose(takes, policy(), excerpts=pairs((1, 3), (2, 3)), previous=published(takes, {1: "train", 2: "test"}))
    assert reasons(found) == {3: "bridges-splits"}
    assert splits(found) == {1: "train", 2: "test"}


def test_a_part_that_was_published_apart_from_its_whole_leaves_train():
    takes = frame(take(1), take(2))
    found = choose(takes, policy(), excerpts=pairs((1, 2)), previous=published(takes, {1: "train", 2: "test"}))
    assert reasons(found) == {1: "leaks-into-test"} and splits(found) == {2: "test"}


def test_test_row_stays_the_keeper_where_a_better_duplicate_arrives():
    takes = frame(take(1, score=0.5), take(2, score=0.9))
    found = choose(takes, policy(), pairs=pairs((1, 2)), previous=published(takes, {1: "test"}))
    assert splits(found) == {1: "test"}


@pytest.mark.parametrize("cap", [0.2, 0.25, 0.4, 0.7])
@pytest.mark.parametrize("counts", [[900, 300, 100, 50, 40], [10, 10, 10, 10, 10], [1000, 1, 1, 1, 1], [5, 3, 400, 300, 200]])
def test_no_genre_holds_more_than_its_share_and_none_could_hold_more(cap, counts):
    genres = {f"genre{at}": count for at, count in enumerate(counts)}
    quotas = capped(genres, cap)
    total = sum(quotas.values())
    assert all(quota <= max(cap, 0.2) * total + 1e-6 for quota in quotas.values())
    raised = {genre: min(count, max(quotas.values()) + 1) for genre, count in genres.items()}
    assert raised == quotas or max(raised.values()) > max(cap, 0.2) * sum(raised.values())


def by_genre(selection: Selection) -> dict[str, int]:
    return dict(selection.kept.group_by("genre").len().iter_rows())


def test_cap_leaves_out_the_least_preferred_of_a_common_genre():
    trap = [take(n, score=0.5 + n / 1000) for n in range(30)]
    rest = [take(100 + n, genre=genre) for n, genre in enumerate(["jazz", "lofi", "rock"] * 5)]
    found = choose(frame(*trap, *rest), policy(balance={"genre_cap": 0.25}))
    assert by_genre(found) == {"trap": 5, "jazz": 5, "lofi": 5, "rock": 5}
    assert [n for n in splits(found) if n < 100] == [25, 26, 27, 28, 29]
    assert found.reasons() == {"genre-cap": 25}


@pytest.mark.parametrize("balance", [{}, {"genre_cap": 1.0}, {"genre_cap": 0.25}])
def test_where_no_cap_binds_the_size_is_the_reason(balance):
    """Without any cap, takes beyond the size were told to be over the cap of their genre, and people raised a cap to no end."""
    found = choose(frame(*(take(n) for n in range(30))), policy(balance={"max_takes": 10} | balance))
    assert found.reasons() == {"size": 20} and found.kept.height == 10
    assert set(found.left_out["detail"]) == {"10 better ones fill the dataset"}


def test_control_a_cap_that_binds_within_a_size_is_still_named():
    takes = frame(*(take(n) for n in range(30)), *(take(100 + n, genre="jazz") for n in range(30)))
    found = choose(takes, policy(balance={"max_takes": 20, "genre_cap": 0.5}))
    assert found.reasons() == {"genre-cap": 40} and by_genre(found) == {"trap": 10, "jazz": 10}


def test_takes_with_feedback_come_first():
    takes = frame(take(1, score=0.9), take(2, score=0.4, liked=True), take(3, score=0.3, rating=4), take(4, score=0.2, used=True))
    rules = policy(balance={"max_takes": 3})
    assert sorted(splits(choose(takes, rules))) == [2, 3, 4]
    assert sorted(splits(choose(takes, policy(balance={"max_takes": 3, "is_feedback_first": False})))) == [1, 2, 3]


def test_scarce_genre_keeps_its_promised_share_of_a_full_dataset():
    takes = frame(*(take(n, score=0.9) for n in range(100)), *(take(100 + n, genre="jazz", score=0.1) for n in range(30)))
    assert by_genre(choose(takes, policy(balance={"max_takes": 50}))) == {"trap": 50}
    assert by_genre(choose(takes, policy(balance={"max_takes": 50, "genre_floor": 0.2}))) == {"trap": 40, "jazz": 10}


@pytest.mark.parametrize("genres", [("trap",), ("trap", "jazz")])
def test_too_few_genres_for_the_cap_fill_the_dataset_all_the_same(genres):
    """With a cap of 0.25 one genre gave 25 of 100 takes, though without a size it gave them all."""
    takes = frame(*(take(n, genre=genres[n % len(genres)]) for n in range(400)))
    found = by_genre(choose(takes, policy(balance={"genre_cap": 0.25, "max_takes": 100})))
    assert found == dict.fromkeys(genres, 100 // len(genres))


def test_pairs_of_audio_that_no_take_has_are_nothing_to_group_by():
    assert reasons(choose(frame(take(1, audio_sha256=None)), policy(), pairs=pairs((1, 2)))) == {1: "not-decoded"}


def test_nothing_to_choose_from_is_an_empty_selection():
    found = choose(frame(), policy())
    assert found.kept.is_empty() and found.left_out.is_empty() and found.reasons() == {}


def test_equal_input_gives_equal_output_whatever_the_order_of_rows():
    takes, evidence = random_world(7, 300)
    rules = policy(balance={"genre_cap": 0.5, "max_takes": 100})
    once = choose(takes, rules, pairs=evidence)
    again = choose(takes.sample(fraction=1.0, shuffle=True, seed=1), rules, pairs=evidence.reverse())
    assert once.kept.equals(again.kept) and once.left_out.equals(again.left_out)
