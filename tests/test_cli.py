"""The command line, on a home of its own: JSON alone on stdout, exit codes that mean something, commands that can be repeated."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from keeptake.ledger.server import embedded_server
from keeptake.records import file_id

pytestmark = pytest.mark.timeout(600)


def environment(home: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("KEEPTAKE_", "DAGSTER_"))}
    return {**clean, "KEEPTAKE_HOME": str(home), "KEEPTAKE_WORKERS": "2"}


def keeptake(home: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dagster_project.cli", *arguments]
    return subprocess.run(command, env={**environment(home), **extra}, capture_output=True, text=True, timeout=400, check=False)


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, object]]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    with embedded_server(home):  # the commands join it; `test_killed.py` has them start and stop their own
        yield home


@pytest.fixture(scope="module")
def source(tmp_path_factory, signals) -> Path:
    """Two takes that can be heard, one file that cannot, one record that is refused."""
    folder = tmp_path_factory.mktemp("source")
    records = []
    for number, tempo_bpm in enumerate((96, 128)):
        soundfile.write(folder / f"{number}.wav", signals.click_track(tempo_bpm, 8, 22_050), 22_050)
        records.append({"generationId": f"take-{number}", "audioUrl": f"{number}.wav", "userPrompt": f"clicks {tempo_bpm} bpm"})
    (folder / "page.mp3").write_text("<html>not here</html>")
    records.append({"generationId": "a-page", "audioUrl": "page.mp3", "userPrompt": "a page"})
    records.append({"generationId": "no-audio", "userPrompt": "nothing"})
    text = "".join(json.dumps({**record, "userId": "u", "provider": "suno"}) + "\n" for record in records)
    (folder / "generations.jsonl").write_text(text)
    return folder


def test_from_import_to_scores_and_again(home, source):
    [imported] = lines(keeptake(home, "import", str(source), "--json"))
    assert (imported["new"], imported["refused"]) == (3, {"missing-audioUrl": 1})
    [again] = lines(keeptake(home, "import", str(source), "--json"))
    assert (again["new"], again["replayed"]) == (0, 3)

    [done] = lines(keeptake(home, "run", "--json"))
    assert {name: done[name] for name in ("analyzed", "embedded", "scored", "failed", "remaining")} == {
        "analyzed": 2,
        "embedded": 2,
        "scored": 2,
        "failed": {"not-audio": 1},
        "remaining": 0,
    }
    [repeated] = lines(keeptake(home, "run", "--json"))
    assert (repeated["analyzed"], repeated["scored"], repeated["failed"]) == (0, 0, {})

    [status] = lines(keeptake(home, "status", "--json"))
    assert status == {
        "generations": 3,
        "refused": {"missing-audioUrl": 1},
        "audio": {"quarantined": 1, "stored": 2},
        "audio_reasons": {"not-audio": 1},
        "analyzed": 2,
        "embedded": 2,
        "scored": 2,
    }
    rows = {row["generation_id"]: row for row in lines(keeptake(home, "status", "--rows", "--json"))}
    assert rows["take-0"]["status"] == "scored"
    assert rows["a-page"]["audio_reason"] == "not-audio"

    [refusal] = lines(keeptake(home, "refusals", "--json"))
    assert (refusal["line"], refusal["generation_id"], refusal["reason"]) == (4, "no-audio", "missing-audioUrl")

    [story] = lines(keeptake(home, "explain", "take-1", "--json"))
    assert story["heard"]["values"]["tempo_bpm"] == pytest.approx(128, rel=0.01)
    assert lines(keeptake(home, "explain", file_id("take-1"), "--json")) == [story]
    assert "everything-good has not judged it yet: its next version will" in story["kept_or_left_out"]
    told = keeptake(home, "explain", "take-1", COLUMNS="120").stdout.splitlines()
    assert "kept or left out" in told[2]  # first of all chapters: the answer stood below 170 lines
    refused = keeptake(home, "explain", "no-audio")
    assert refused.returncode == 2 and re.search(r"refused at the door: missing-audioUrl \(.*from .* line 4", refused.stderr)

    [quarantined] = lines(keeptake(home, "quarantine", "list", "--json"))
    assert quarantined["generation_id"] == "a-page"
    shown = keeptake(home, "quarantine", "list", COLUMNS="80").stdout
    assert "a-page" in shown and "not-audio" in shown and "never by itself" in shown, "in a terminal of 80 letters no word is cut"
    assert lines(keeptake(home, "quarantine", "retry", "--reason", "not-audio", "--dry-run", "--json")) == [{"not-audio": 1}]

    drawn = keeptake(home, "status", COLUMNS="100").stdout
    assert re.search(r"generations +│ 3 +│", drawn) and re.search(r"audio reasons: not-audio +│ 1 +│", drawn)
    assert re.search(r"last 30 days, today 3 +│ ▁{29}█ +│", drawn)
    (tenths,) = re.findall(r"scores from 0 to 1 +│ (\S+)", drawn)
    assert len(tenths) == 10 and set(tenths) > {"▁"}

    [opened] = lines(keeptake(home, "open", "take-1", "--json"))
    assert opened["datasets"] == []
    assert Path(opened["audio"]).read_bytes() == (source / "1.wav").read_bytes()
    assert keeptake(home, "open", "take-1", COLUMNS="20").stdout == f"{opened['audio']}\n"  # a table once broke it in two
    nothing = keeptake(home, "open", "a-page")
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "keeptake explain a-page" in nothing.stderr


def test_a_policy_is_published_by_its_file_and_its_version_is_opened_once(home, source, tmp_path):
    """A version was printed for each of its clips; a policy given by its file ended in a traceback; S3 away ended with 5."""
    keeptake(home, "import", str(source), "--json")
    keeptake(home, "run", "--json")
    file = tmp_path / "in-pieces.toml"
    file.write_text("[select]\nmin_score = 0.0\n[audio]\nmax_clip_s = 3.0\n[splits]\nvalid = 0.0\ntest = 0.0\n")
    folder = {"KEEPTAKE_POLICIES_DIR": str(tmp_path)}

    away = {"KEEPTAKE_AUDIO_URL": "s3://away/audio", "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_REGION": "x"}
    refused = keeptake(home, "publish", "in-pieces", **folder, **away, AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b")
    assert (refused.returncode, "cannot look into the audio store" in refused.stderr) == (3, True), refused.stderr
    [published] = lines(keeptake(home, "publish", str(file), "--json", **folder))
    assert (published["name"], published["is_new"]) == ("in-pieces", True) and published["rows"]["train"] > 3
    [opened] = lines(keeptake(home, "open", "take-1", "--json"))
    assert opened["datasets"] == [published["path"]]
    [story] = lines(keeptake(home, "explain", "take-1", "--json", **folder))
    [answer] = story["kept_or_left_out"]
    assert re.match(rf"in-pieces keeps it in train, in {published['version']} \(train, \d clips\); decided \S+ for v1-", answer)
    [clip] = lines(keeptake(home, "open", story["versions"][0]["row_id"], "--json"))
    assert clip == opened

    file.write_text(file.read_text().replace("3.0", "4.0"))
    keeptake(home, "publish", "in-pieces", **folder)
    made, *rows = lines(keeptake(home, "datasets", "diff", "in-pieces", "v1", "v2", "--json"))
    assert (made["columns"], made["reason"]) == (["policy.audio.max_clip_s"], "3.0 → 4.0")
    assert {row["change"] for row in rows} == {"changed", "removed"}


def test_a_key_is_made_listed_and_revoked(home):
    [made] = lines(keeptake(home, "keys", "create", "--scope", "stats:read", "--json"))
    [listed] = lines(keeptake(home, "keys", "list", "--json"))
    assert listed["scopes"] == ["stats:read"]
    assert made["key"].split("_")[2] not in json.dumps(listed)
    assert keeptake(home, "keys", "revoke", listed["id"], "--json").returncode == 0
    assert keeptake(home, "keys", "revoke", "nobody").returncode == 1


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["import", "/nowhere/at/all"], 2, "is no source"),
        (["publish", "no-such-policy"], 2, "no-such-policy"),
        (["publish", "/nowhere/no-such-policy.toml"], 2, "no-such-policy"),
        (["explain", "no-such-take"], 2, "no-such-take"),
    ],
)
def test_wrong_use_is_one_clear_sentence(home, arguments, code, says):
    done = keeptake(home, *arguments)
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2


@pytest.mark.parametrize(
    ("arguments", "variable", "says"),
    [
        (("status",), {"KEEPTAKE_WORKERS": "abc"}, "KEEPTAKE_WORKERS: Input should be a valid integer"),
        (("status",), {"KEEPTAKE_DATABASE_URL": "nonsense"}, "KEEPTAKE_DATABASE_URL: expected postgresql://"),
        (("status",), {"KEEPTAKE_DATABASE_URL": "mysql://x/y"}, "KEEPTAKE_DATABASE_URL: expected postgresql://"),
        (("run",), {"KEEPTAKE_FEEDS_FILE": "/nope.toml"}, "the feeds file /nope.toml cannot be read"),
        (("quarantine", "list", "--day", "nonsense"), {}, "Invalid value for '--day'"),
        (("quarantine", "list", "--most", "-1"), {}, "Invalid value for '--most'"),
        (("quarantine", "retry", "--older-than-h", "-5"), {}, "Invalid value for '--older-than-h'"),
        (("quarantine", "retry", "--older-than-h", "1e300"), {}, "Invalid value for '--older-than-h'"),
    ],
)
def test_what_cannot_be_meant_is_exit_code_2_and_no_stack(home, arguments, variable, says):
    """Settings ended in a stack and 1; a negative age set all failed takes back."""
    done = keeptake(home, *arguments, **variable)
    assert (done.returncode, says in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr


def test_a_dead_database_is_one_clear_sentence_and_exit_code_3(tmp_path):
    done = keeptake(tmp_path, "status", KEEPTAKE_DATABASE_URL="postgresql://me:secret@127.0.0.1:1/none")
    assert done.returncode == 3
    assert "does not answer" in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_analyze_prints_json_lines_and_needs_no_ledger(tmp_path, source):
    heard, page = lines(keeptake(tmp_path, "analyze", str(source / "0.wav"), str(source / "page.mp3"), "--no-networks", "--json"))
    assert (heard["status"], page["status"], page["reason"]) == ("ok", "quarantined", "not-audio")
    assert heard["tempo_bpm"] == pytest.approx(96, rel=0.01)
    assert not (tmp_path / "pg").exists()


def test_analyze_shows_on_a_terminal_how_far_it_has_come_and_keeps_its_lines_off_it(tmp_path, source):
    """A bar takes stdout over where its stream is a terminal: the lines of `analyze FILES > lines` were about to end on it."""
    ours, terminal = pty.openpty()
    command = [sys.executable, "-m", "dagster_project.cli", "analyze", *map(str, sorted(source.glob("?.wav"))), "--no-networks"]
    with (tmp_path / "lines").open("w") as out:
        subprocess.run(command, env=environment(tmp_path) | {"TERM": "xterm"}, stdout=out, stderr=terminal, check=True)
    os.close(terminal)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert "2/2" in shown and "tempo_bpm" not in shown
    assert [json.loads(line)["status"] for line in (tmp_path / "lines").read_text().splitlines()] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--key", "H minor"], "F# minor"),
        (["--tempo-from", "140", "--tempo-to", "90"], "above"),
        (["--tempo-from", "nan"], "greater than or equal to 0"),
        (["--tempo-to", "-1"], "greater than or equal to 0"),
    ],
)
def test_a_filter_of_similar_that_cannot_be_meant_is_refused(home, given, said):
    done = keeptake(home, "similar", "take-0", *given)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_words_without_a_space_of_prompts_say_what_to_configure(home):
    pytest.importorskip("sentence_transformers", reason="the extra text is not installed")
    done = keeptake(home, "similar", "a sad piano", "--words")
    assert (done.returncode, done.stdout) == (3, "")
    assert "KEEPTAKE_EMBEDDING_MODELS" in done.stderr


def test_duplicates_tells_people_what_was_not_compared(tmp_path, source):
    """The table named the groups alone: a broken file looked like one without copies."""
    (tmp_path / "page.wav").write_text("<html>no such song</html>")
    takes = sorted(source.glob("?.wav"))
    done = keeptake(tmp_path, "duplicates", *map(str, takes), str(tmp_path / "page.wav"))
    assert (done.returncode, "page.wav" in done.stdout.replace("\n", ""), "not-audio" in done.stdout) == (0, True, True)
    assert f"{len(takes) + 1}/{len(takes) + 1}" in done.stderr
