"""A policy is what its file says, or a sentence that names the key."""

from pathlib import Path

import pytest

from keeptake.curation.policy import load_policies, load_policy, policy_names, read_policy
from keeptake.errors import ConfigurationError

SHIPPED = Path(__file__).parent.parent / "policies"


def written(folder: Path, text: str, name: str = "mine") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_shipped_policies_hold_the_original_goals():
    assert policy_names(SHIPPED) == ["everything-good", "full-songs", "musicgen-instrumental"]
    for name in ("full-songs", "musicgen-instrumental"):
        goals = load_policy(name, SHIPPED)
        assert goals.select.min_score == 0.7 and goals.readiness.takes == 10_000
        assert goals.balance.genre_cap < 1 and goals.balance.is_feedback_first
    assert load_policy("musicgen-instrumental", SHIPPED).select.vocals == "without"
    everything = load_policy("everything-good", SHIPPED)
    assert (everything.select.min_score, everything.balance.genre_cap, everything.balance.max_takes) == (0.3, 1.0, None)


def test_absent_keys_have_their_defaults(tmp_path):
    found = load_policy(written(tmp_path, ""))
    assert found.name == "mine" and found.select.min_score == 0.7 and found.audio.max_clip_s == 29.9


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[select]\nmin_scor = 0.5", "unknown key select.min_scor; did you mean min_score?"),
        ("[selekt]\nmin_score = 0.5", "unknown key selekt; did you mean select?"),
        ("[select]\nzzz = 1", "unknown key select.zzz; known here: formula, min_score"),
        ("[select]\nmin_score = 1.5", "select.min_score: Input should be less than or equal to 1"),
        ("[select]\nmin_score = nan", "select.min_score: Input should be a finite number"),
        ("[select]\nformula = 'seed_v9'", "formula is one of seed_v1, v2, found 'seed_v9'"),
        ("[select]\ndefects = ['is_loud']", "defects are among has_clipping"),
        ("[select]\nvocals = 'none'", "select.vocals: Input should be 'any', 'without' or 'with'"),
        ("[select]\nmin_duration_s = 9\nmax_duration_s = 3", "min_duration_s 9 is above max_duration_s 3"),
        ("[splits]\nvalid = 0.5\ntest = 0.5", "valid 0.5 and test 0.5 leave nothing for train"),
        ("[audio]\nmin_clip_s = 30.0", "audio.min_clip_s: Input should be less than or equal to 29.9"),
        ("[balance]\ngenre_cap = 0", "balance.genre_cap: Input should be greater than 0"),
        ("min_score = ", "is not TOML"),
    ],
)
def test_what_cannot_be_is_refused_by_name(tmp_path, text, sentence):
    with pytest.raises(ConfigurationError) as refused:
        load_policy(written(tmp_path, text))
    assert sentence in str(refused.value) and "mine.toml" in str(refused.value)


def test_missing_policy_names_the_nearest():
    with pytest.raises(ConfigurationError, match=r"no policy full-song: .* did you mean full-songs"):
        load_policy("full-song", SHIPPED)
    with pytest.raises(ConfigurationError, match="there are everything-good, full-songs, musicgen-instrumental"):
        load_policy("xyz", SHIPPED)


def test_name_that_cannot_be_a_folder_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="a name has 1 to 64 of"):
        load_policy(written(tmp_path, "", name="My Policy"))


def test_a_policy_cannot_take_the_name_of_another_dataset(tmp_path):
    """`name = "other"` in mine.toml published into the folder of the dataset other."""
    with pytest.raises(ConfigurationError, match=r"mine.toml: name = 'other' would publish into another dataset's folder"):
        load_policy(written(tmp_path, "name = 'other'"))
    assert load_policy(written(tmp_path, "name = 'mine'")).name == "mine"


def test_clips_of_thirty_seconds_are_refused_before_any_work():
    """Trainers keep clips strictly shorter than 30 s: a policy of longer ones was accepted, its version refused by the gate."""
    with pytest.raises(ConfigurationError, match=r"max_clip_s"):
        read_policy({"name": "long", "audio": {"max_clip_s": 30.0}}, origin="test")


def test_a_draft_that_cannot_be_read_keeps_no_other_policy_from_its_work(tmp_path):
    """One key with a typo failed the run of every dataset, after its version was visible."""
    (tmp_path / "good.toml").write_text("[select]\nmin_score = 0.3\n")
    (tmp_path / "draft.toml").write_text("[select]\nmin_scor = 0.3\n")
    (tmp_path / "Name.toml").write_text("")
    (tmp_path / "folder.toml").mkdir()

    policies, unreadable = load_policies(tmp_path)

    assert [policy.name for policy in policies] == ["good"]
    assert "unknown key select.min_scor" in unreadable["draft"] and "a name has" in unreadable["Name"]
    assert "cannot be read (Is a directory)" in unreadable["folder"]
