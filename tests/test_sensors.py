"""What starts runs by itself: the pure functions behind the sensors."""

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_project import sensors
from dagster_project.lost_runs import read_seen
from dagster_project.sensors import days_to_request, policies_to_publish, read_asked, resting
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
    assert all(isinstance(count, int) for count in read_asked(cursor).values())
    assert all(isinstance(run_id, str) for run_id in read_seen(cursor))


@pytest.mark.parametrize("cursor", ["[]", "1", '{"a": "x"}', "{", "null"])
def test_a_cursor_that_makes_no_sense_counts_as_none(cursor):
    assert read_asked(cursor) == {} and read_seen(cursor) == []


def test_a_version_is_asked_for_once_a_step():
    good = {"small": 150, "large": 450}
    assert policies_to_publish(good, {}, (), after=200) == ["large"]
    assert policies_to_publish(good, {"large": 450}, (), after=200) == []
    assert policies_to_publish({"large": 651}, {"large": 450}, (), after=200) == ["large"]
    assert policies_to_publish({"large": 651}, {"large": 450}, {"large"}, after=200) == []


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
