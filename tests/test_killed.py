"""Commands that are killed: `kill -9` of `keeptake import` and `keeptake run` at any moment, then the same command to its end.

The stages have a kill test of their own with its control (`test_stages.py`); here the whole commands die, with workers, embedded
Postgres and Dagster's records as they are.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import psutil
import pytest
import soundfile
import sqlalchemy as sa

from dagster_project.home import dagster_url
from dagster_project.lost_runs import lost_runs
from keeptake.ledger.connection import Ledger
from keeptake.ledger.server import embedded_server
from resources.ledger import LedgerResource, claim_of

pytestmark = pytest.mark.timeout(600)

KEEPTAKE = [sys.executable, "-m", "dagster_project.cli"]


def environment(home: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("KEEPTAKE_", "DAGSTER_"))}
    return {**clean, "KEEPTAKE_HOME": str(home), "KEEPTAKE_WORKERS": "2", "KEEPTAKE_CHUNK_ROWS": "4"}


def keeptake(home: Path, *arguments: str) -> list[dict[str, object]]:
    done = subprocess.run(
        [*KEEPTAKE, *arguments], env=environment(home), capture_output=True, text=True, timeout=1500, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def killed(home: Path, *arguments: str, when: Callable[[], bool]) -> None:
    """Start a command, `kill -9` it as soon as `when` holds, and see that it was not done before and that no worker stays."""
    process = subprocess.Popen(
        [*KEEPTAKE, *arguments], env=environment(home), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not when():
        assert process.poll() is None, "the command ended before it could be killed"
        time.sleep(0.02)
    workers = [child for child in psutil.Process(process.pid).children(recursive=True) if "postgres" not in child.name()]
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert alive == []


def counted(ledger: Ledger, query: str) -> int:
    with ledger.begin() as connection:
        return int(connection.scalar(sa.text(query)) or 0)


def heard(home: Path) -> list[tuple[object, ...]]:
    """What a home knows of each take, but for the times at which it came to know it."""
    query = (
        "SELECT generation_id, status, audio_status, audio_reason, audio_sha256, quality_score, tempo_bpm, key, loudness_lufs"
        " FROM generations LEFT JOIN features USING (audio_sha256) ORDER BY generation_id"
    )
    with embedded_server(home) as url:
        ledger = Ledger(url)
        with ledger.begin() as connection:
            rows = [tuple(row) for row in connection.execute(sa.text(query))]
        ledger.dispose()
    return rows


@pytest.fixture
def takes(tmp_path, signals) -> Path:
    """Twenty takes that can be heard, one file that cannot, one record that is refused."""
    folder = tmp_path / "takes"
    folder.mkdir()
    records = [{"generationId": "a-page", "audioUrl": "page.mp3"}, {"generationId": "no-audio"}]
    (folder / "page.mp3").write_text("<html>not here</html>")
    for number in range(20):
        soundfile.write(folder / f"{number}.wav", signals.click_track(80 + 4 * number, 8, 22_050), 22_050)
        records.append({"generationId": f"take-{number}", "audioUrl": f"{number}.wav"})
    text = "".join(json.dumps({**record, "userPrompt": "clicks", "userId": "u", "provider": "suno"}) + "\n" for record in records)
    (folder / "generations.jsonl").write_text(text)
    return folder


def see_lost_runs_ended(instance: dg.DagsterInstance, url: str) -> None:
    """What was killed counts as at work for ever, and its day was asked for no more: at the second look it has failed.

    One that holds its claim is alive, and left alone.
    """

    def started() -> set[str]:
        return {run.run_id for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))}

    def look(cursor: str | None) -> str | None:
        context = dg.build_sensor_context(instance=instance, resources={"ledger": LedgerResource(url=url)}, cursor=cursor)
        with context:
            lost_runs(context)
            return context.cursor

    left = started()
    assert len(left) == 3
    ledger, alive = Ledger(url), min(left)
    with ledger.claim(claim_of(alive)):
        cursor = look(None)
        assert started() == left
        look(cursor)
        assert started() == {alive}
    look(look(None))
    assert started() == set()
    assert {instance.get_run_by_id(run_id).status for run_id in left} == {dg.DagsterRunStatus.FAILURE}
    ledger.dispose()


def test_a_run_killed_again_and_again_ends_where_an_undisturbed_one_does(tmp_path, takes, monkeypatch):
    calm, disturbed = tmp_path / "calm", tmp_path / "disturbed"
    for home in (calm, disturbed):
        keeptake(home, "import", str(takes), "--json")
    [done] = keeptake(calm, "run", "--json")
    assert (done["analyzed"], done["scored"], done["remaining"]) == (20, 20, 0)

    with embedded_server(disturbed) as url:
        ledger = Ledger(url)
        for least in (1, 6, 12):
            killed(disturbed, "run", when=lambda least=least: counted(ledger, "SELECT count(*) FROM features") >= least)
        committed = counted(ledger, "SELECT count(*) FROM features")
        monkeypatch.setenv("KEEPTAKE_DAGSTER_URL", dagster_url(url))
        with dg.DagsterInstance.from_config(str(disturbed / "dagster")) as instance:
            see_lost_runs_ended(instance, url)
        ledger.dispose()
        [rest] = keeptake(disturbed, "run", "--json")
    assert 12 <= committed < 20
    assert rest["analyzed"] == 20 - committed
    assert rest["remaining"] == 0
    assert heard(disturbed) == heard(calm)


def test_an_interrupted_import_continues(tmp_path):
    """Every record once, every refusal once: what was committed before the kill is replayed, the rest is new."""
    folder, home = tmp_path / "many", tmp_path / "home"
    folder.mkdir()
    good = {"userId": "u", "userPrompt": "x" * 2000, "audioUrl": "https://example.com/a.wav", "provider": "suno"}
    with (folder / "generations.jsonl").open("w") as lines:
        for number in range(30_000):
            lines.write((json.dumps({**good, "generationId": f"g{number}"}) if number % 10 else f"{{odd {number}") + "\n")
    with embedded_server(home) as url:
        ledger = Ledger(url)
        rows = "SELECT count(*) FROM generations"
        keeptake(home, "migrate", "--json")
        killed(home, "import", str(folder), when=lambda: counted(ledger, rows) >= 1000)
        committed = counted(ledger, rows)
        [rest] = keeptake(home, "import", str(folder), "--json")
        assert 0 < committed < 27_000
        assert (rest["new"], rest["replayed"]) == (27_000 - committed, committed)
        assert counted(ledger, rows) == 27_000
        assert counted(ledger, "SELECT count(*) FROM refusals") == 3000
        ledger.dispose()


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_the_labelled_set_ends_the_same_after_five_kills(tmp_path, dev_data):
    calm, disturbed = tmp_path / "calm", tmp_path / "disturbed"
    for home in (calm, disturbed):
        keeptake(home, "import", str(dev_data), "--json")
    [done] = keeptake(calm, "run", "--json")
    assert done["remaining"] == 0
    [again] = keeptake(calm, "run", "--json")
    assert (again["analyzed"], again["remaining"]) == (0, 0)
    heard_files = "SELECT count(*) FROM features"
    with embedded_server(disturbed) as url:
        ledger = Ledger(url)
        for least in (1, 30, 60, 90, 120):
            killed(disturbed, "run", when=lambda least=least: counted(ledger, heard_files) >= least)
        committed = counted(ledger, heard_files)
        ledger.dispose()
        [rest] = keeptake(disturbed, "run", "--json")
    assert rest["analyzed"] == done["analyzed"] - committed
    assert heard(disturbed) == heard(calm)
