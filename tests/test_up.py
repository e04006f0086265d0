"""`keeptake up`, for real: the daemon works with nobody watching, commands work beside it, and all of it ends together."""

import json
import signal
import subprocess
import sys

import psutil
import pytest
import soundfile

from dagster_project.launcher import cut_logs

pytestmark = pytest.mark.timeout(600)


def test_a_log_that_grows_is_put_aside_once_and_goes_on(tmp_path):
    """The daemon's log grew by 18 MB a day, and nothing ever ended it."""
    log = tmp_path / "dagster-daemon.log"
    with log.open("ab", buffering=0) as written:
        for line in (b"first\n", b"second\n"):
            written.write(line)
            cut_logs(tmp_path, most_bytes=5)
        written.write(b"3\n")  # by a program that never opened it anew
        cut_logs(tmp_path, most_bytes=5)
    assert log.read_bytes() == b"3\n"
    assert (tmp_path / "dagster-daemon.log.1").read_bytes() == b"second\n"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_log_that_cannot_be_put_aside_ends_nothing(tmp_path):
    (tmp_path / "api.log").write_bytes(b"more than five")
    (tmp_path / "api.log.1").mkdir()
    cut_logs(tmp_path, most_bytes=5)
    assert (tmp_path / "api.log").read_bytes() == b"more than five"


@pytest.fixture
def scored(home_up, running):
    """Quality scores of the scored takes for which a condition holds."""
    return lambda condition: home_up.numbers(
        running, f"SELECT quality_score FROM generations WHERE status = 'scored' AND {condition}"
    )


def write_take(path, signals, tempo_bpm):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, signals.click_track(tempo_bpm, 8, 22_050), 22_050)


def test_dropped_saved_and_liked_takes_end_scored_with_nobody_touching_anything(running, home_up, scored, signals, tmp_path):
    # A file dropped into the incoming folder.
    write_take(running.home / "incoming" / "dropped.wav", signals, 120)
    home_up.waited_for(lambda: scored("audio_url LIKE '%dropped.wav'"))

    # A row that another process saved.
    write_take(tmp_path / "saved.wav", signals, 97)
    record = {
        "userId": "u1",
        "generationId": "saved-elsewhere",
        "userPrompt": "clicks at 97 bpm",
        "audioUrl": "saved.wav",
        "provider": "suno",
    }
    save_from_another_process(home_up, running, record, tmp_path)
    home_up.waited_for(lambda: scored("generation_id = 'saved-elsewhere'"))
    before = scored("generation_id = 'saved-elsewhere'")

    # Feedback that changed.
    save_from_another_process(home_up, running, {**record, "userFeedback": {"liked": True}}, tmp_path)
    home_up.waited_for(lambda: scored("generation_id = 'saved-elsewhere'") != before)
    assert scored("generation_id = 'saved-elsewhere'") == pytest.approx([before[0] + 0.2])


def save_from_another_process(home_up, running, record, folder):
    code = (
        "import json, sys\n"
        "from keeptake.ledger.connection import Ledger\n"
        "from keeptake.ledger.generations import accept\n"
        "from keeptake.records import read_record\n"
        "ledger = Ledger(sys.argv[1])\n"
        "with ledger.begin() as connection:\n"
        "    accept(connection, [read_record(sys.argv[2].encode())], source='test', audio_root=sys.argv[3])\n"
        "ledger.dispose()\n"
    )
    given = [running.ledger.url, json.dumps(record), str(folder)]
    subprocess.run([sys.executable, "-c", code, *given], check=True, env=home_up.environment(running.home))


def keeptake(home_up, running, *arguments):
    return subprocess.run(
        [*home_up.KEEPTAKE, *arguments],
        env=home_up.environment(running.home),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_second_up_says_who_holds_the_home(running, home_up):
    second = keeptake(home_up, running, "up")
    assert second.returncode == 4
    assert f"process {running.process.pid}" in second.stderr
    assert "Traceback" not in second.stderr


def test_commands_work_beside_it(running, home_up):
    """They once waited for the embedded server until `up` had ended."""
    beside = keeptake(home_up, running, "status", "--json")
    assert beside.returncode == 0, beside.stderr
    assert json.loads(beside.stdout)["refused"] == {}


def test_what_dies_or_is_left_behind_is_seen_to(home_up, tmp_path):
    """A server that had ended was started by nobody; a killed `up` left its programs behind, which held its ports."""
    with home_up.everything_up(tmp_path) as running:
        children = psutil.Process(running.process.pid).children(recursive=True)
        first = int((tmp_path / "pg" / "postmaster.pid").read_text().split()[0])
        psutil.Process(first).kill()
        home_up.waited_for(lambda: pid_of_server(tmp_path) not in (None, first), within_s=60)
        running.ledger.dispose()
        home_up.waited_for(lambda: home_up.numbers(running, "SELECT 1") == [1], within_s=30)
        running.process.kill()
        running.process.wait(30)
        assert any(child.is_running() for child in children)
    with home_up.everything_up(tmp_path) as again:
        _, alive = psutil.wait_procs(children, timeout=20)
        assert alive == []
        again.process.send_signal(signal.SIGHUP)
        assert again.process.wait(60) == 0
    assert pid_of_server(tmp_path) is None


def pid_of_server(home):
    try:
        return int((home / "pg" / "postmaster.pid").read_text().split()[0])
    except (OSError, IndexError, ValueError):
        return None


def test_everything_ends_with_it(home_up, tmp_path):
    """A killed `dagster dev` once left webserver and daemon behind."""
    with home_up.everything_up(tmp_path) as running:
        children = psutil.Process(running.process.pid).children(recursive=True)
        assert len(children) >= 3
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(60) == 0
        _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []
    assert not (tmp_path / "pg" / "postmaster.pid").exists()
