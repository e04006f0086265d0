"""What starts runs by itself: the pure functions behind the sensors."""

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets import partitions
from dagster_project import sensors
from dagster_project.lost_runs import read_seen
from dagster_project.sensors import Asked, days_to_request, policies_to_publish, read_asked, resting, rules_of, with_rules
from keeptake.curation.policy import Policy
from keeptake.settings import settings
from keeptake.sources.pull import read_asks
from resources.audio_store import AudioStoreResource
from resources.ledger import LedgerResource


def test_days_without_work_or_with_a_run_are_not_asked_for():
    pending = {"2026-11-01": 3, "2026-11-02": 0, "2026-11-03": 5, "2026-11-04": 1}
    assert days_to_request(pending, {"2026-11-03"}, most=10) == ["2026-11-04", "2026-11-01"]


def test_todays_takes_come_before_a_years_history():
    pending = {f"2025-{month:02}-01": 100 for month in range(1, 13)} | {"2026-11-22": 1}
    asked = days_to_request(pending, (), most=3)
    assert asked[0] == "2026-11-22"
    assert len(asked) == 3


@given(st.one_of(st.none(), st.text(), st.binary().map(str)))
def test_any_cursor_is_read(cursor):
    assert all(isinstance(asked.good, int) for asked in read_asked(cursor).values())
    assert all(isinstance(run_id, str) for run_id in read_seen(cursor))
    assert all(ask.rest_s is not None for ask in read_asks(cursor).values())


@pytest.mark.parametrize("cursor", ["[]", "1", '{"a": "x"}', '{"a": [1]}', '{"a": ["x", "y"]}', "{", "null"])
def test_a_cursor_that_makes_no_sense_counts_as_none(cursor):
    assert read_asked(cursor) == {} and read_seen(cursor) == [] and read_asks(cursor) == {}


def test_a_large_dataset_waits_for_a_share_of_itself():
    """Two hundred takes a time were five whole versions a day of a dataset of 100,000."""
    asked = {"large": Asked(100_000)}
    assert policies_to_publish({"large": Asked(101_999)}, asked, (), after=200) == []
    assert policies_to_publish({"large": Asked(102_000)}, asked, (), after=200) == ["large"]


def test_a_version_is_asked_for_once_a_step():
    now = {"small": Asked(150, "s"), "large": Asked(450, "l")}
    more = {"large": Asked(651, "l")}
    assert policies_to_publish(now, {}, (), after=200) == ["large"]
    assert policies_to_publish(now, now, (), after=200) == []
    assert policies_to_publish(more, now, (), after=200) == ["large"]
    assert policies_to_publish(more, now, {"large"}, after=200) == []


def test_a_policy_that_changed_is_asked_for_at_once():
    """After min_score 0.3 → 0.35 no version came until the count had grown past that of the old rules by a whole step."""
    before = {"large": Asked(450, rules_of(Policy(name="large", select={"min_score": 0.3})))}
    now = {"large": Asked(300, rules_of(Policy(name="large", select={"min_score": 0.35})))}
    assert policies_to_publish(now, before, (), after=200) == ["large"]
    assert policies_to_publish(now, now, (), after=200) == []
    assert policies_to_publish(now, before, {"large"}, after=200) == []
    assert policies_to_publish({"large": now["large"]._replace(good=0)}, before, (), after=200) == []


def test_a_cursor_without_rules_asks_for_nothing_by_itself():
    asked, now = read_asked('{"large": 450, "gone": 2}'), {"large": Asked(450, "l")}
    assert policies_to_publish(now, asked, (), after=200) == []
    assert with_rules(asked, now) == {"large": Asked(450, "l"), "gone": Asked(2)}
    assert policies_to_publish({"large": Asked(450, "new")}, with_rules(asked, now), (), after=200) == ["large"]


def test_a_default_that_is_written_out_changes_no_rules():
    assert rules_of(Policy(name="a", select={"min_score": 0.7})) == rules_of(Policy(name="a"))


@pytest.fixture
def gate(ledger, tmp_path, monkeypatch):
    """Tick the gate over policies of a folder, with one good take of each by `count`; a cursor goes from tick to tick."""
    counts, cursor = {}, [None]
    monkeypatch.setenv("KEEPTAKE_POLICIES_DIR", str(tmp_path))
    monkeypatch.setenv("KEEPTAKE_PUBLISH_AFTER_ROWS", "30")
    monkeypatch.setattr(partitions, "by_policy", dg.StaticPartitionsDefinition(["full", "good"]))
    monkeypatch.setattr(sensors, "good_takes", lambda ledger, formula, min_score: counts[min_score])
    settings.cache_clear()
    resources = {"ledger": LedgerResource(url=ledger.url), "audio_store": AudioStoreResource(url=tmp_path.as_uri())}

    def tick(**policies):
        for name, (min_score, count) in policies.items():
            (tmp_path / f"{name}.toml").write_text(f"select.min_score = {min_score}")
            counts[min_score] = count
        with (
            dg.instance_for_test() as instance,
            dg.build_sensor_context(instance=instance, resources=resources, cursor=cursor[0]) as context,
        ):
            said = sensors.enough_new_takes(context)
            cursor[0] = context.cursor
        return said.skip_message if isinstance(said, dg.SkipReason) else [ask.partition_key for ask in said.run_requests]

    yield tick
    settings.cache_clear()


def test_a_tick_of_the_gate_says_how_far_each_policy_is(gate, tmp_path):
    """It said that no policy had enough new good takes: not how many there were, nor that a policy could not be read."""
    (tmp_path / "draft.toml").write_text("select.min_scoer = 0.2")
    said = gate(good=(0.3, 13), full=(0.4, 0))
    assert said.startswith("new good takes: full 0 of 30, good 13 of 30; ")
    assert "draft.toml: unknown key select.min_scoer; did you mean min_score?" in said
    (tmp_path / "draft.toml").unlink()
    assert gate(late=(0.5, 40)).endswith("; late was added a moment ago: the daemon takes it up within two minutes")


def test_the_gate_asks_again_once_a_policy_is_changed(gate):
    assert gate(good=(0.3, 40)) == ["good"]
    assert gate(good=(0.3, 45)) == "new good takes: good 5 of 30"
    assert gate(good=(0.35, 20)) == ["good"]
    assert gate(good=(0.35, 21)) == "new good takes: good 1 of 30"


def test_a_day_that_fails_rests_longer_each_time():
    """While a store was away, a run of each pending day failed every 15 seconds, with an alert each."""
    once, thrice = [("a", True, 1_000.0)], [("a", True, 1_000.0), ("a", True, 900.0), ("a", True, 800.0)]
    assert resting(once, 1_029.0) == {"a"} and resting(once, 1_031.0) == set()
    assert resting(thrice, 1_119.0) == {"a"} and resting(thrice, 1_121.0) == set()
    many = [("a", True, 1_000.0 - n) for n in range(50)]
    assert resting(many, 1_899.0) == {"a"} and resting(many, 1_901.0) == set()


def test_a_success_ends_the_rest():
    assert resting([("a", False, 1_000.0), ("a", True, 999.0)], 1_001.0) == set()
    assert resting([("a", True, 1_000.0), ("a", False, 999.0), *[("a", True, 998.0)] * 9], 1_031.0) == set()


@pytest.mark.parametrize(("sensor", "day"), [("feedback_moved", ""), ("outdated_places", "2026-05-01")])
def test_a_run_that_failed_is_not_asked_for_again_at_once(ledger, monkeypatch, sensor, day):
    """A run that cannot succeed, for want of a model say, was started and its alert sent at every tick."""
    monkeypatch.setattr(sensors, "count_lagging", lambda ledger: 1)
    monkeypatch.setattr(sensors, "outdated_by_day", lambda *asked: {"2026-05-01": 1})
    asking = getattr(sensors, sensor)
    resources = {"ledger": LedgerResource(url=ledger.url)}
    with dg.instance_for_test() as instance, dg.build_sensor_context(instance=instance, resources=resources) as context:
        assert not isinstance(asking(context), dg.SkipReason)
        tags = {"dagster/partition": day} if day else {}
        failed = dg.DagsterRun(job_name=asking.job_name, run_id="failed", status=dg.DagsterRunStatus.FAILURE, tags=tags)
        instance.add_run(failed)
        assert isinstance(asking(context), dg.SkipReason)
        monkeypatch.setattr(sensors, "REST_S", 0.0)  # control: nothing is waited for
        assert not isinstance(asking(context), dg.SkipReason)
