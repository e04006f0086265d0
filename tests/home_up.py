"""A home with everything up, as `keeptake up` starts it: what it prints, takes for it, questions to its Dagster UI.

Belongs here: what the tests of the running home share. Does not: what they assert.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import sqlalchemy as sa

from keeptake.beatmaker import Take, plan_demo, record_of, write_audio
from keeptake.ledger.connection import Ledger
from keeptake.ledger.generations import accept
from keeptake.records import Accepted, read_record

KEEPTAKE = [sys.executable, "-m", "dagster_project.cli"]
SEEN_WITHIN_S = 90  # the promise; times on a machine that does nothing else
SCREENSHOTS = os.environ.get("KEEPTAKE_SCREENSHOTS")  # a folder: the pictures of docs/data-team.md are taken into it

POLICY = "all-that-was-heard"
_POLICY = """
description = "Everything that was heard: a policy that a few takes satisfy."
[select]
min_score = 0.0
"""
SECOND_POLICY = "nothing-is-that-good"  # so that there is more than one, and the gate still asks for one
_SECOND_POLICY = """
description = "Only what nobody could like better."
[select]
min_score = 1.0
"""
# The UI's dialog of partitions shows the last 90 days at first.
DAYS = tuple((datetime.now(UTC).date() - timedelta(days=ago)).isoformat() for ago in (3, 2))
TAKES = 20 if SCREENSHOTS else 14  # pictures want a corpus, assertions a few takes
PUBLISH_AFTER_ROWS = TAKES + 2  # the gate waits until a test adds the rest

_REPOSITORY = {"repositoryName": "__repository__", "repositoryLocationName": "dagster_project.definitions"}


class Running(NamedTuple):
    """A home with everything up."""

    home: Path
    ui: str
    ledger: Ledger
    process: "subprocess.Popen[str]"


def environment(home: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("KEEPTAKE_", "DAGSTER_"))}
    return clean | settings_of(home) | {"KEEPTAKE_UI_PORT": "0", "KEEPTAKE_API_PORT": "0", "KEEPTAKE_WORKERS": "2"}


def settings_of(home: Path) -> dict[str, str]:
    """The settings that a test's own process shares with the home."""
    return {
        "KEEPTAKE_HOME": str(home),
        "KEEPTAKE_POLICIES_DIR": str(home / "policies"),
        "KEEPTAKE_PUBLISH_AFTER_ROWS": str(PUBLISH_AFTER_ROWS),
    }


@contextmanager
def everything_up(home: Path) -> Iterator[Running]:
    """Run `keeptake up` on a home with two policies, until the end of the block."""
    (home / "policies").mkdir(parents=True, exist_ok=True)
    for name, policy in ((POLICY, _POLICY), (SECOND_POLICY, _SECOND_POLICY)):
        (home / "policies" / f"{name}.toml").write_text(policy)
    process = subprocess.Popen([*KEEPTAKE, "up"], env=environment(home), stdout=subprocess.PIPE, text=True)
    printed = []
    assert process.stdout is not None
    for line in process.stdout:
        printed.append(line)
        if line.startswith("Running"):
            break
    said = "".join(printed)
    assert "Running" in said, said
    ui = re.search(r"Dagster UI +(\S+)", said)
    url = re.search(r"Ledger +(\S+)", said)
    assert ui is not None and url is not None
    ledger = Ledger(url[1])
    try:
        yield Running(home, ui[1], ledger, process)
    finally:
        ledger.dispose()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def waited_for(found: Callable[[], object], *, within_s: float = SEEN_WITHIN_S) -> float:
    """Seconds until something is found; fails when it takes too long."""
    begun = time.monotonic()
    while not found():
        assert time.monotonic() - begun < within_s, f"not seen within {within_s} s"
        time.sleep(0.5)
    return time.monotonic() - begun


def save(ledger: Ledger, records: Iterable[Mapping[str, Any]], folder: Path, *, days: Mapping[str, str] | None = None) -> None:
    """Accept records of the audio in a folder, each on the capture day that `days` names for its id, or today."""
    believed = [read_record(json.dumps(record).encode()) for record in records]
    accepted = [record for record in believed if isinstance(record, Accepted)]
    assert accepted == believed
    with ledger.begin() as connection:
        accept(connection, accepted, source="test", audio_root=str(folder))
        for generation_id, day in (days or {}).items():
            moved = sa.text("UPDATE generations SET captured_on = :day WHERE generation_id = :id")
            connection.execute(moved, {"day": day, "id": generation_id})


def add_demo(running: Running, folder: Path) -> list[Take]:
    """Render the beat maker's takes and save them on two capture days in turn, with one on the first whose file is lost."""
    takes = plan_demo(TAKES, seed=2)
    folder.mkdir(parents=True, exist_ok=True)
    for take in takes:
        write_audio(take, folder)
    lost = record_of(takes[0]) | {"generationId": "demo-lost", "audioUrl": "lost.wav"}
    days = {take.generation_id: DAYS[take.number % 2] for take in takes} | {"demo-lost": DAYS[0]}
    save(running.ledger, [*(record_of(take) for take in takes), lost], folder, days=days)
    return takes


def numbers(running: Running, query: str, **values: object) -> list[Any]:
    """First column of a query's rows."""
    with running.ledger.begin() as connection:
        return list(connection.scalars(sa.text(query), values))


def is_done(running: Running) -> bool:
    """Whether every take is scored or quarantined, and no run is queued or at work."""
    takes = numbers(running, "SELECT 1 FROM generations WHERE status NOT IN ('scored', 'quarantined') LIMIT 1")
    runs = numbers(running, "SELECT 1 FROM dagster.runs WHERE status NOT IN ('SUCCESS', 'FAILURE', 'CANCELED') LIMIT 1")
    return not takes and not runs


def ask(running: Running, query: str, **variables: object) -> Any:
    """Ask the Dagster UI's own GraphQL, and return the data of its answer."""
    answer = httpx2.post(f"{running.ui}/graphql", json={"query": query, "variables": variables}, timeout=60)
    said = answer.json()
    assert "errors" not in said, said["errors"]
    return said["data"]


def launch(running: Running, job: str, tags: Iterable[Mapping[str, str]] = ()) -> str:
    """Launch a job as the launchpad does, and return the id of its run."""
    said = ask(
        running,
        "mutation($params: ExecutionParams!) { launchRun(executionParams: $params)"
        " { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }",
        params={"selector": _REPOSITORY | {"jobName": job}, "executionMetadata": {"tags": list(tags)}},
    )["launchRun"]
    assert said["__typename"] == "LaunchRunSuccess", said
    return str(said["run"]["runId"])


def run_status(running: Running, run_id: str) -> str:
    """What became of a run: QUEUED, STARTED, SUCCESS, FAILURE …."""
    return str(numbers(running, "SELECT status FROM dagster.runs WHERE run_id = :run_id", run_id=run_id)[0])


def wait_for_success(running: Running, run_id: str) -> None:
    """Wait until a run has ended, which must be well."""
    waited_for(lambda: run_status(running, run_id) in ("SUCCESS", "FAILURE", "CANCELED"), within_s=180)
    assert run_status(running, run_id) == "SUCCESS"


def sensor_ticks(running: Running, sensor: str) -> list[dict[str, Any]]:
    """The last ticks of a sensor, the newest first, as the UI lists them: `timestamp, status, skipReason, runIds`."""
    said = ask(
        running,
        "query($selector: SensorSelector!) { sensorOrError(sensorSelector: $selector) { __typename ... on Sensor { sensorState"
        " { status ticks(limit: 20) { timestamp status skipReason runIds } } } } }",
        selector=_REPOSITORY | {"sensorName": sensor},
    )["sensorOrError"]
    assert said["__typename"] == "Sensor", said
    ticks: list[dict[str, Any]] = said["sensorState"]["ticks"]
    return ticks


def schedules(running: Running) -> dict[str, dict[str, Any]]:
    """Each schedule's job, state and next tick, as the UI shows them."""
    found = ask(
        running,
        "query($selector: RepositorySelector!) { schedulesOrError(repositorySelector: $selector) { __typename ... on Schedules"
        " { results { name pipelineName scheduleState { status } futureTicks(limit: 1) { results { timestamp } } } } } }",
        selector=_REPOSITORY,
    )["schedulesOrError"]["results"]
    return {schedule["name"]: schedule for schedule in found}


def requested_by(running: Running, schedule: str, timestamp: float) -> list[dict[str, Any]]:
    """The run requests of a schedule's tick at a time, as the daemon's code server evaluates it: `jobName, runKey, tags`."""
    said = ask(
        running,
        "mutation($selector: ScheduleSelector!, $at: Float) { scheduleDryRun(selectorData: $selector, timestamp: $at)"
        " { __typename ... on DryRunInstigationTick"
        " { evaluationResult { error { message } runRequests { jobName runKey tags { key value } } } } } }",
        selector=_REPOSITORY | {"scheduleName": schedule},
        at=timestamp,
    )["scheduleDryRun"]
    assert said["__typename"] == "DryRunInstigationTick", said
    assert said["evaluationResult"]["error"] is None
    requests: list[dict[str, Any]] = said["evaluationResult"]["runRequests"]
    return requests


def reload_definitions(running: Running) -> None:
    """Press *Reload definitions* in the UI."""
    said = ask(
        running,
        "mutation($name: String!) { reloadRepositoryLocation(repositoryLocationName: $name) { __typename } }",
        name=_REPOSITORY["repositoryLocationName"],
    )["reloadRepositoryLocation"]
    assert said["__typename"] == "WorkspaceLocationEntry", said


def healthy_daemons(running: Running) -> set[str]:
    """The daemons that the UI's deployment page shows as running."""
    health = ask(running, "{ instance { daemonHealth { allDaemonStatuses { daemonType healthy } } } }")
    return {daemon["daemonType"] for daemon in health["instance"]["daemonHealth"]["allDaemonStatuses"] if daemon["healthy"]}
