"""What happens in a running home with nobody touching anything: the gate's versions, and what the schedules ask for.

The real daemon ticks, the real UI is asked what it ticked; nothing is evaluated in this process but the gate's control.
"""

import json
import re
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from uuid import uuid4

import dagster as dg
import pytest
import soundfile

from assets import partitions
from dagster_project import sensors
from keeptake.audio_store import key_of
from keeptake.ledger.soundness import problems
from keeptake.settings import settings
from resources.audio_store import AudioStoreResource
from resources.ledger import LedgerResource

pytestmark = pytest.mark.timeout(600)

GATE = "enough_new_takes"
GATE_WITHIN_S = 240  # the gate looks twice a minute, and a run waits for its turn; the rest is for crowded machines
STORED = "SELECT generation_id FROM generations WHERE status = 'scored' AND audio_root LIKE '%demo%' ORDER BY id"


@pytest.fixture(scope="module", autouse=True)
def late(running, home_up):
    """A policy that is written while everything is up, long before it is asked for: the daemon looks once a minute."""
    policy = running.home / "policies" / "late.toml"
    policy.write_text('description = "Written while everything was up."\nselect.min_score = 1.0')
    yield policy
    policy.unlink()
    home_up.reload_definitions(running)


def add_clicks(home_up, running, signals, folder, count):
    """Save takes of today, each a click track of its own tempo, and wait until they are scored."""
    batch = uuid4().hex[:8]
    records = []
    for number in range(count):
        name = f"clicks-{batch}-{number}"
        soundfile.write(folder / f"{name}.wav", signals.click_track(80 + 7 * number, 6, 22_050), 22_050)
        records.append(
            {"userId": "u2", "generationId": name, "userPrompt": name, "audioUrl": f"{name}.wav", "provider": "musicgen"}
        )
    home_up.save(running.ledger, records, folder)
    home_up.waited_for(lambda: home_up.is_done(running), within_s=240)
    return [record["generationId"] for record in records]


def audio_of(home_up, running, take):
    return home_up.numbers(running, "SELECT audio_sha256 FROM generations WHERE generation_id = :id", id=take)[0]


@contextmanager
def without_object(home_up, running, take):
    """Put a take's object out of the store's sight for the length of the block."""
    path = running.home / "audio" / key_of(audio_of(home_up, running, take))
    aside = path.with_suffix(".aside")
    path.rename(aside)
    try:
        yield
    finally:
        aside.rename(path)


@contextmanager
def without_features(home_up, running, take):
    """Take away what was heard in a take, which stays called scored, for the length of the block."""
    sha256 = audio_of(home_up, running, take)
    row = home_up.numbers(
        running, "DELETE FROM features f WHERE audio_sha256 = :sha256 RETURNING to_jsonb(f)::text", sha256=sha256
    )
    assert len(row) == 1
    try:
        yield
    finally:
        put_back = (
            "INSERT INTO features SELECT * FROM jsonb_populate_record(NULL::features, CAST(:row AS jsonb)) RETURNING audio_sha256"
        )
        assert home_up.numbers(running, put_back, row=row[0]) == [sha256]


@contextmanager
def with_another_score(home_up, running, take):
    """Let a take claim another score than its formula's for the length of the block."""
    claimed = "UPDATE generations SET quality_score = quality_score / 2 WHERE generation_id = :id RETURNING 1"
    assert home_up.numbers(running, claimed, id=take) == [1]
    try:
        yield
    finally:
        mended = (
            "UPDATE generations g SET quality_score = q.total FROM quality_scores q WHERE q.generation = g.id"
            " AND q.formula = 'seed_v1' AND g.generation_id = :id RETURNING 1"
        )
        assert home_up.numbers(running, mended, id=take) == [1]


def gate_runs(home_up, running):
    """Runs that the gate asked for, as Dagster keeps them."""
    return home_up.numbers(
        running,
        "SELECT r.run_id FROM dagster.runs r JOIN dagster.run_tags t USING (run_id)"
        " WHERE t.key = 'dagster/sensor_name' AND t.value = :gate ORDER BY r.id",
        gate=GATE,
    )


def published_takes(home_up, running):
    """Takes of the newest version."""
    return set(
        home_up.numbers(
            running,
            "SELECT generation_id FROM dataset_rows WHERE dataset ="
            " (SELECT id FROM dataset_versions WHERE name = :policy ORDER BY ordinal DESC LIMIT 1)",
            policy=home_up.POLICY,
        )
    )


def refusal(home_up, running, since_s):
    """What the gate's last tick after a time said is wrong."""
    ticks = [tick for tick in home_up.sensor_ticks(running, GATE) if tick["timestamp"] > since_s]
    said = [tick["skipReason"] or "" for tick in ticks if tick["status"] == "SKIPPED"]
    return next((reason for reason in said if reason.startswith("blocking checks fail")), None)


def test_the_gate_publishes_enough_new_takes_once_the_ledger_is_sound(running, home_up, demo_takes, signals, tmp_path):
    """It looked at the ledger alone: takes whose object was gone made a run that failed, and were asked for no more."""
    misjudged, unseen, unheard = home_up.numbers(running, STORED)[-3:]
    good = home_up.numbers(running, "SELECT count(*) FROM quality_scores WHERE formula = 'seed_v1'")[0]
    before = gate_runs(home_up, running)
    with with_another_score(home_up, running, misjudged):  # the one problem that lets takes through until they are scored
        added = add_clicks(home_up, running, signals, tmp_path, max(1, home_up.PUBLISH_AFTER_ROWS - good))
        with without_object(home_up, running, unseen), without_features(home_up, running, unheard):
            broken_s = time.time()
            home_up.waited_for(lambda: refusal(home_up, running, broken_s), within_s=GATE_WITHIN_S)
            reason = refusal(home_up, running, broken_s)
            assert gate_runs(home_up, running) == before
    assert f"1 stored audio files that the store does not have, the first {audio_of(home_up, running, unseen)}" in reason
    assert f"1 analyzed takes without features, the first {unheard}" in reason
    assert f"1 takes whose score is not the formula's, the first {misjudged}" in reason

    home_up.waited_for(lambda: gate_runs(home_up, running) != before, within_s=GATE_WITHIN_S)
    (run,) = set(gate_runs(home_up, running)) - set(before)
    home_up.wait_for_success(running, run)
    assert set(added) <= judged_takes(home_up, running)
    assert published_takes(home_up, running)


def judged_takes(home_up, running):
    """Takes of which the newest selection says whether they are in."""
    query = "SELECT g.generation_id FROM selections s JOIN generations g ON g.id = s.generation WHERE s.policy = :policy"
    return set(home_up.numbers(running, query, policy=home_up.POLICY))


@pytest.fixture
def ticked(running, home_up, monkeypatch):
    """A sensor as the daemon would tick it at its first look, in this process."""
    for name, value in {**home_up.settings_of(running.home), "KEEPTAKE_PUBLISH_AFTER_ROWS": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(partitions, "by_policy", dg.StaticPartitionsDefinition([home_up.POLICY, home_up.SECOND_POLICY]))
    settings.cache_clear()
    connections = {
        "ledger": LedgerResource(url=running.ledger.url),
        "audio_store": AudioStoreResource(url=(running.home / "audio").as_uri()),
    }

    def tick(sensor):
        wanted = {name: resource for name, resource in connections.items() if name in sensor.required_resource_keys}
        with dg.instance_for_test() as instance, dg.build_sensor_context(instance=instance, resources=wanted) as context:
            return sensor(context)

    yield tick
    settings.cache_clear()


def publish(home_up, running):
    tags = [{"key": "dagster/partition", "value": home_up.POLICY}]
    home_up.wait_for_success(running, home_up.launch(running, "publish_dataset", tags))


def test_control_without_its_look_at_the_ledger_the_gate_publishes_a_hole(running, home_up, demo_takes, ticked, monkeypatch):
    if not published_takes(home_up, running):
        publish(home_up, running)
    unheard = min(published_takes(home_up, running) & {take.generation_id for take in demo_takes})
    with without_features(home_up, running, unheard):
        assert isinstance(ticked(sensors.enough_new_takes), dg.SkipReason)
        monkeypatch.setattr(sensors, "problems", lambda *asked: [])
        requests = ticked(sensors.enough_new_takes).run_requests
        assert [request.partition_key for request in requests] == [home_up.POLICY]
        publish(home_up, running)
        assert published_takes(home_up, running)
        assert unheard not in published_takes(home_up, running)


def test_takes_of_an_older_version_of_the_model_are_placed_anew(running, home_up, demo_takes, ticked):
    """After an upgrade new takes were missing from search until somebody thought of a backfill."""
    assert isinstance(ticked(sensors.outdated_places), dg.SkipReason)
    present = home_up.numbers(running, "SELECT DISTINCT version FROM embeddings")
    days = home_up.numbers(
        running, "SELECT DISTINCT captured_on::text AS day FROM generations WHERE status = 'scored' ORDER BY 1"
    )
    for table, column in (("embeddings", "version"), ("embedding_scalers", "model_version")):
        assert home_up.numbers(running, f"UPDATE {table} SET {column} = 'older' RETURNING 1")
    requests = ticked(sensors.outdated_places).run_requests
    assert sorted(request.partition_key for request in requests) == days

    asked = [[{"key": "dagster/partition", "value": request.partition_key}] for request in requests]
    for run in [home_up.launch(running, "place_anew", tags) for tags in asked]:  # all at once, as the daemon does
        home_up.wait_for_success(running, run)
    in_use = "SELECT DISTINCT model_version FROM embedding_scalers WHERE is_current"
    assert home_up.numbers(running, in_use) == present
    assert isinstance(ticked(sensors.outdated_places), dg.SkipReason)
    assert {tick["status"] for tick in home_up.sensor_ticks(running, "outdated_places")} <= {"SKIPPED", "SUCCESS"}


def test_two_runs_of_one_dataset_at_once_take_turns(running, home_up, demo_takes):
    """Pressed twice in the UI, one of them failed: the other had claimed the publication."""
    tags = [{"key": "dagster/partition", "value": home_up.POLICY}]
    first, second = (home_up.launch(running, "publish_dataset", tags) for _ in range(2))
    wait_for_turns(home_up, running, first, second)


def wait_for_turns(home_up, running, first, second):
    """Wait until two runs have ended well, one after the other."""
    home_up.wait_for_success(running, first)
    home_up.wait_for_success(running, second)
    in_turn = (
        "SELECT b.start_time >= a.end_time FROM dagster.runs a, dagster.runs b WHERE a.run_id = :first AND b.run_id = :second"
    )
    assert True in {
        *home_up.numbers(running, in_turn, first=first, second=second),
        *home_up.numbers(running, in_turn, first=second, second=first),
    }


def test_a_store_that_holds_everything_is_no_problem(running, home_up, demo_takes):
    store = AudioStoreResource(url=(running.home / "audio").as_uri()).get()
    assert problems(running.ledger, store.has) == []
    assert "the store does not have" in problems(running.ledger, lambda sha256: False)[0]


@pytest.mark.parametrize(
    ("schedule", "job", "when"),
    [
        ("monthly_export", "publish_dataset", "day 01, 03:00"),
        ("weekly_score_report", "report_scores", "Monday, 04:00"),
        ("weekly_purge", "forget_old_runs", "Sunday, 05:00"),
    ],
)
def test_a_schedule_ticks_in_the_daemon_and_its_run_succeeds(running, home_up, demo_takes, schedule, job, when):
    found = home_up.schedules(running)[schedule]
    (tick,) = found["futureTicks"]["results"]
    at = datetime.fromtimestamp(tick["timestamp"], UTC)
    assert found["pipelineName"] == job
    assert found["scheduleState"]["status"] == "RUNNING"
    assert when in (f"day {at:%d, %H:%M}", f"{at:%A, %H:%M}")
    assert "SCHEDULER" in home_up.healthy_daemons(running)

    request = home_up.requested_by(running, schedule, tick["timestamp"])[0]
    home_up.wait_for_success(running, home_up.launch(running, request["jobName"] or job, request["tags"]))
    home = running.home
    if schedule == "monthly_export":
        (version, *_) = (home / "datasets" / home_up.POLICY).glob("v*/MANIFEST.json")
        assert json.loads(version.read_text())
    elif schedule == "weekly_score_report":
        assert (home / "reports" / f"scores-{datetime.now(UTC).date()}.md").read_text().startswith("# Scores on")


def partitions_of(requests):
    return [tag["value"] for request in requests for tag in request["tags"] if tag["key"] == "dagster/partition"]


def test_every_policy_is_asked_for_each_month_anew(running, home_up):
    """With more than one policy, as shipped, no dataset was published by the schedule: the requests had no keys."""
    (tick,) = home_up.schedules(running)["monthly_export"]["futureTicks"]["results"]
    asked = [home_up.requested_by(running, "monthly_export", tick["timestamp"] + seconds) for seconds in (0, 31 * 86_400)]
    assert [sorted(partitions_of(requests)) for requests in asked] == 2 * [[home_up.POLICY, home_up.SECOND_POLICY]]
    keys = [request["runKey"] for requests in asked for request in requests]
    assert len(set(keys)) == 4  # a key starts one run, ever


def test_a_policy_that_came_later_keeps_no_other_from_its_versions(running, home_up, demo_takes, ticked):
    """The gate asked for a partition that the running graph did not know, and failed for every policy until a restart."""
    later = running.home / "policies" / "later.toml"
    later.write_text('description = "Written while everything was up."')
    try:
        requests = ticked(sensors.enough_new_takes).run_requests
    finally:
        later.unlink()
    assert [request.partition_key for request in requests] == [home_up.POLICY]


def test_a_policy_that_came_later_needs_no_restart_and_its_runs_take_turns(running, home_up, demo_takes, late):
    """Only policies of the start had turns, and a restart was asked for: two runs of a later one collided, with a stack."""
    far, name = re.compile(rf"\b{late.stem} \d+ of \d+"), late.stem

    def is_taken_up():
        return any(far.search(tick["skipReason"] or "") for tick in home_up.sensor_ticks(running, GATE))

    home_up.waited_for(is_taken_up, within_s=GATE_WITHIN_S)
    late.write_text('description = "Written while everything was up."\nselect.min_score = 0.0')
    (tick,) = home_up.schedules(running)["monthly_export"]["futureTicks"]["results"]
    assert name not in partitions_of(home_up.requested_by(running, "monthly_export", tick["timestamp"]))
    home_up.reload_definitions(running)
    asked = home_up.requested_by(running, "monthly_export", tick["timestamp"])
    (tags,) = (request["tags"] for request in asked if name in partitions_of([request]))
    first, second = (home_up.launch(running, "publish_dataset", tags) for _ in range(2))
    wait_for_turns(home_up, running, first, second)
    own = "SELECT run_id FROM dagster.run_tags WHERE key = 'keeptake/dataset' AND value = :name"
    assert {first, second} <= set(home_up.numbers(running, own, name=name))


def test_the_schedules_are_there(running, home_up):
    assert set(home_up.schedules(running)) == {"monthly_export", "nightly_snapshots", "weekly_purge", "weekly_score_report"}


def test_at_night_the_snapshots_of_days_with_new_scores_are_written_anew(running, home_up, demo_takes):
    """A new score was in the snapshot of an older day only once somebody ran it again; two such days were never asked for."""
    schedule = home_up.schedules(running)["nightly_snapshots"]
    (tick,) = schedule["futureTicks"]["results"]
    assert f"{datetime.fromtimestamp(tick['timestamp'], UTC):%H:%M}" == "02:00"
    days = home_up.numbers(
        running,
        "UPDATE quality_scores q SET scored_at = now() FROM generations g WHERE g.id = q.generation AND q.formula = 'v2' AND"
        " g.id IN (SELECT max(id) FROM generations WHERE status = 'scored' GROUP BY captured_on) RETURNING g.captured_on::text",
    )
    assert len(days) > 1
    requests = home_up.requested_by(running, "nightly_snapshots", tick["timestamp"])
    assert set(days) <= set(partitions_of(requests))
    for run in [home_up.launch(running, "renew_snapshots", request["tags"]) for request in requests]:
        home_up.wait_for_success(running, run)
    assert not set(days) & set(partitions_of(home_up.requested_by(running, "nightly_snapshots", tick["timestamp"])))
