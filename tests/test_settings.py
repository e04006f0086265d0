"""The settings: one typed class, one example file, equal."""

import re

import pytest

from keeptake.errors import ConfigurationError
from keeptake.settings import PROJECT, Settings, listed

EXAMPLE = PROJECT / ".env.example"


def test_the_example_lists_every_setting_with_its_sentence_and_default():
    lines = EXAMPLE.read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == []
    found = {match[1]: match[2] for line in lines if (match := re.fullmatch(r"#(KEEPTAKE_[A-Z_]+)=(.*)", line))}
    expected = {}
    for name, field in Settings.model_fields.items():
        value = field.default
        value = "" if value is None else str(value).replace(f"{PROJECT}/", "")
        expected[f"KEEPTAKE_{name.upper()}"] = value
        assert f"# {field.description}" in lines, f"the sentence of {name} is not in .env.example"
    assert found == expected


def test_the_environment_overrides(monkeypatch, tmp_path):
    monkeypatch.setenv("KEEPTAKE_HOME", str(tmp_path))
    monkeypatch.setenv("KEEPTAKE_AUDIO_URL", "")
    chosen = Settings(_env_file=None)
    assert chosen.home == tmp_path
    assert chosen.audio_location == (tmp_path / "audio").as_uri()


def test_listed_drops_what_is_empty():
    assert listed(" a,, b ,") == ["a", "b"]


def test_the_pseudonyms_key_is_whole_or_not_there(tmp_path):
    """Killed between making its file and filling it, all pseudonyms were hashes without a key, which anybody can go back from."""
    key = Settings(home=tmp_path, _env_file=None).pseudonym_secret()
    assert len(key) == 64 and Settings(home=tmp_path, _env_file=None).pseudonym_secret() == key
    [path] = tmp_path.iterdir()
    assert path.name == "pseudonym.key" and path.stat().st_mode & 0o077 == 0
    path.write_text("")
    with pytest.raises(ConfigurationError, match="KEEPTAKE_PSEUDONYM_KEY"):
        Settings(home=tmp_path, _env_file=None).pseudonym_secret()
